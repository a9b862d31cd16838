"""A child process, from its first line on: it is bound to its parent before anything that takes long is imported.

`supervise.Child` runs this file as a script; torch and laconic come with what is unpickled. Arguments: the parent's
process id, the descriptor of the connection to it, and 1 where the kernel shall end this process with its parent.
"""

import os
import signal
import sys
import threading
from typing import Any

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def main() -> None:
    """Make the object that the parent asks for, and call its methods on request until the parent closes."""
    parent, descriptor, by_kernel = (int(text) for text in sys.argv[1:])
    # Ctrl-C is for the parent, which ends its children. It started this process with the signal blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _end_with(parent, by_kernel=bool(by_kernel))

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
        os._exit(code)  # a process group that has lost a rank cannot be taken down in order


def _end_with(parent: int, *, by_kernel: bool) -> None:
    """End this process when `parent` ends, even by SIGKILL, and also if it has ended already.

    The kernel does it at once, but when the *thread* ends that started this process: the parent asks for it only where
    that is its main thread. Everywhere else a thread does it, as soon as it may run: standard input is a pipe whose
    other end the parent alone holds.
    """
    if by_kernel and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)
    threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


class _Line:
    """The connection to the parent. Plain pickles, so that tensors travel by value."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - its module is imported late
        import pickle

        self._connection, self._pickle = connection, pickle

    def receive(self) -> bytes:
        """The next pickle; empty when the parent has closed."""
        try:
            data: bytes = self._connection.recv_bytes()
        except (EOFError, OSError):
            return b""
        return data

    def load(self, data: bytes) -> Any:  # noqa: ANN401
        return self._pickle.loads(data)

    def send(self, kind: str, content: object) -> None:
        """One message; where the parent is gone, this process ends."""
        data = self._pickle.dumps((kind, content), self._pickle.HIGHEST_PROTOCOL)
        try:
            self._connection.send_bytes(data)
        except OSError:
            os._exit(1)


def _serve(line: _Line) -> int:
    """Answer each request; the exit code. After a failure nothing more is answered: the object may be half changed."""
    try:
        sys.path[:] = line.load(line.receive())  # before the next is unpickled, which imports modules
        make, arguments = line.load(line.receive())
        served = make(*arguments)
        while request := line.receive():
            method, arguments, reports = line.load(request)
            if reports:
                arguments["report"] = lambda content: line.send("report", content)
            line.send("result", getattr(served, method)(**arguments))
    except Exception as error:
        import traceback

        line.send("failed", (f"{type(error).__name__}: {error}", traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    main()
