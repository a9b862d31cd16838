"""How long tests wait before they give up: long enough for a machine many times slower, for only hangs to be ended."""

PATIENCE_S = 600.0  # timeout_s of the library, where no test is about it
DEADLINE_S = 1500.0  # a group of processes, or a command, from its start to its end

# Where a rank hangs, the others wait this long for it; where it dies they notice, and then wait an eighth of this for
# its last words. Both are for ranks that are there already and need milliseconds for what they are to do.
HANG_TIMEOUT_S = 8.0
DEATH_TIMEOUT_S = 20.0
