"""The child's side of `supervise.Child`: it ends with its parent from its first line, before any slow import.

`supervise.Child` runs this file as a script; unpickling imports torch and laconic. The script's arguments are the
parent's process id, the file descriptor of the connection, and 1 if the kernel is to end this process with its parent.
"""

import os
import signal
import sys
import threading
from typing import Any

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def main() -> None:
    """Make the requested object, and call its methods on request until the parent closes the connection."""
    parent, descriptor, by_kernel = (int(text) for text in sys.argv[1:])
    # The parent handles Ctrl-C and ends its children. It started this process with the signal blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _end_with(parent, by_kernel=bool(by_kernel))
    for stream in (sys.stdout, sys.stderr):  # a user's method may print what the terminal's encoding does not have
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]

    from multiprocessing.connection import Connection

    os.set_inheritable(descriptor, False)
    code = 1
    try:
        code = _serve(_Line(Connection(descriptor)))
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a process group that has lost a rank cannot be shut down cleanly


def _end_with(parent: int, *, by_kernel: bool) -> None:
    """End this process when `parent` ends, even by SIGKILL, or if it has ended already.

    The kernel does this at once, but when the *thread* that started this process ends. So the parent requests it only
    from its main thread. In all other cases a thread here does it: standard input is a pipe whose other end only the
    parent holds.

    Args:
        parent: The parent's process id.
        by_kernel: Whether to request it from the kernel (Linux only).
    """
    if by_kernel and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the request to the kernel
        os._exit(1)
    threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


class _Line:
    """The connection to the parent. It sends plain pickles, so that tensors are sent by value."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - its module is imported late
        import pickle

        self._connection, self._pickle = connection, pickle

    def receive(self) -> bytes:
        """Return the next pickle, or empty bytes if the parent has closed the connection."""
        try:
            data: bytes = self._connection.recv_bytes()
        except (EOFError, OSError):
            return b""
        return data

    def load(self, data: bytes) -> Any:  # noqa: ANN401
        return self._pickle.loads(data)

    def send(self, kind: str, content: object) -> None:
        """Send one message. If the parent has ended, end this process."""
        data = self._pickle.dumps((kind, content), self._pickle.HIGHEST_PROTOCOL)
        try:
            self._connection.send_bytes(data)
        except OSError:
            os._exit(1)


def _serve(line: _Line) -> int:
    """Answer requests and return the exit code. A failure ends it, since the object may be in an invalid state."""
    try:
        sys.path[:] = line.load(line.receive())  # before the next pickle, which imports modules
        make, arguments = line.load(line.receive())
        served = make(*arguments)
        while request := line.receive():
            method, arguments, reports = line.load(request)
            if reports:
                arguments["report"] = lambda content: line.send("report", content)
            line.send("result", getattr(served, method)(**arguments))
    except Exception as error:
        import traceback

        from laconic.lab.processes.place import described

        line.send("failed", (described(error), traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    main()
