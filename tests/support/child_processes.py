"""What the system says about processes, and a child process for the time of a block."""

import contextlib
import time
from pathlib import Path

from laconic.lab.processes.supervise import Child, end_all
from support.deadlines import DEADLINE_S


def until(happened, what):
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def state_of(pid):
    """A process's state, as a letter, and its parent. X where there is none."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "X", 0
    return state, int(parent)


def has_ended(pid):
    return state_of(pid)[0] in "ZX"  # Z: and whoever inherited it has not asked how


def children_of(pid):
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended since
            found += map(int, (thread / "children").read_text().split())
    return sorted(one for one in found if not has_ended(one))


@contextlib.contextmanager
def started(make, *arguments):
    process = Child("sample", make, *arguments)
    try:
        yield process
    finally:
        end_all([process])
