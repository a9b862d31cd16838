"""Child processes of a command: deaf to Ctrl-C, which is for their parent, and ended by their own ids."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

_PATIENCE_S = 5


class LaunchError(RuntimeError):
    """A child process that failed or died; says which and how."""


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Children started here inherit it: Ctrl-C is for the parent, which ends them by their own ids."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_all(children: Sequence[BaseProcess]) -> None:
    """Ask every child to end, wait for it, and kill the one that does not."""
    for child in children:
        child.terminate()
    for child in children:
        child.join(_PATIENCE_S)
        if child.is_alive():
            child.kill()
            child.join()
