"""How long tests wait before they give up: long enough for a machine many times slower, for only hangs to be ended."""

PATIENCE_S = 600.0  # timeout_s of the library, in tests of other things
DEADLINE_S = 1500.0  # a group of processes, or a command, from its start to its end

# If a rank hangs, the others wait this long for it. If it dies, they see it, and then wait an eighth of this for
# its report. Both are for ranks that have started and need milliseconds for their tasks.
HANG_TIMEOUT_S = 8.0
DEATH_TIMEOUT_S = 20.0
