"""How a command is stopped: SIGTERM and Ctrl-C end it with one line, whatever it does. Imports no torch."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_UNWIND_S = 2.0  # between a signal and the end of this process, whatever its main thread does
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """SIGTERM or Ctrl-C came. No `Exception`: nothing on its way up takes it for a failure of its own.

    Notes (`add_note`) say what is finished.
    """

    def __init__(self, number: int) -> None:
        """number: the signal's."""
        super().__init__(number)
        self.number = number


@contextmanager
def stopped_by_signals(give_up: Callable[[int], object], *, unwind_s: float = _UNWIND_S) -> Iterator[None]:
    """Within, the first SIGTERM or Ctrl-C raises `Stopped` in the main thread; later ones change nothing.

    A main thread that waits in C code cannot raise anything. Then, `unwind_s` after the signal, another thread calls
    `give_up` with the signal's number, which shall end the process. Only in the main thread; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers, wakeup = os.pipe()  # Python writes a signal's number there as soon as it comes
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
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(wakeup_before)
        unwound.set()
        os.close(wakeup)
        watcher.join()
        os.close(numbers)


def stopped_line(number: int) -> str:
    """What a command prints that a signal has stopped."""
    return "stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def exit_code(number: int) -> int:
    """What shells report for a process that a signal has stopped: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def end_at_once(number: int, frame: object = None) -> None:
    """End this process, with that line."""
    os.write(2, f"{stopped_line(number)}\n".encode())
    os._exit(exit_code(number))


@contextmanager
def ended_at_once_by_signals() -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C end this process at once: for imports, which take long and have done nothing yet.

    Only in the main thread; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, end_at_once) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
