"""What `python -O -m support.without_asserts` writes: wrong frames that sessions refuse, and what a reader refuses."""

import sys

from support.hostile_outcomes import digest
from support.wrong_frames import NotRefusedError, refuse_all_once

if __name__ == "__main__":
    if __debug__:
        raise NotRefusedError("python -O is needed: it drops every assert")
    sys.stdout.write(f"{refuse_all_once()}\n{digest()}\n")
