"""SIGTERM and Ctrl-C: they end a command with one line, whatever it does. This module imports no torch."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_UNWIND_S = 2.0  # maximum time between a signal and the end of this process
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """SIGTERM or Ctrl-C arrived. It is not an `Exception`, so that no handler of failures catches it.

    Its notes (`add_note`) say what is finished.
    """

    def __init__(self, number: int) -> None:
        """Make it for the signal of this number."""
        super().__init__(number)
        self.number = number


@contextmanager
def stopped_by_signals(give_up: Callable[[int], object], *, unwind_s: float = _UNWIND_S) -> Iterator[None]:
    """Let the first SIGTERM or Ctrl-C raise `Stopped` in the main thread; ignore later ones.

    A main thread that waits in C code cannot raise. Therefore another thread calls `give_up` if the block is not left
    in time. In a thread other than the main one this does nothing.

    Args:
        give_up: Gets the signal's number, and must end the process.
        unwind_s: Seconds between the signal and the call of `give_up`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers, wakeup = os.pipe()  # Python writes a signal's number there as soon as it arrives
    os.set_blocking(wakeup, False)
    came = False
    unwound = threading.Event()

    def stop(number: int, frame: object) -> None:
        nonlocal came
        if not came:
            came = True
            raise Stopped(number)

    def watch() -> None:
        while number := os.read(numbers, 1):
            if number[0] in _SIGNALS and not unwound.wait(unwind_s):
                give_up(number[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wakeup_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        came = True
        _restore(handlers)
        signal.set_wakeup_fd(wakeup_before)
        unwound.set()
        os.close(wakeup)
        watcher.join()
        os.close(numbers)


def stopped_line(number: int) -> str:
    """Return the line that a command prints when a signal stops it."""
    return "stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def exit_code(number: int) -> int:
    """Return the exit code of a process that a signal stopped: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def exit_at_once(number: int) -> None:
    """End this process after its last line. The normal exit of Python first tears torch down, for a second or two."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code(number))


def end_at_once(number: int, frame: object = None) -> None:
    """Print the line of `stopped_line` and end this process."""
    os.write(2, f"{stopped_line(number)}\n".encode())
    os._exit(exit_code(number))


def end_at_once_on_signals() -> dict[int, Any]:
    """Let SIGTERM and Ctrl-C end this process at once, from now on; return the handlers before.

    For imports, which take long and leave nothing to clean up, and for the exit of Python. In a thread other than the
    main one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, end_at_once) for number in _SIGNALS}


@contextmanager
def ended_at_once_by_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end this process at once within this context."""
    handlers = end_at_once_on_signals()
    try:
        yield
    finally:
        _restore(handlers)


def print_anything() -> None:
    """Let characters that the terminal's encoding does not have be printed as `?`, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _restore(handlers: Mapping[Any, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
