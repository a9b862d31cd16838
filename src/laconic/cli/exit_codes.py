"""The exit codes of commands: 0 is fine, 2 a user's mistake, 128 and more a signal."""

ANSWER_IS_NO = 1
"""`laconic check`: the machines do not agree, or do not reach each other."""
DIVERGED = 3
"""The command finished, and wrote all that it was to write, but a run diverged."""
