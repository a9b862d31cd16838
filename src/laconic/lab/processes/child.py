"""The child's side of `supervise.Child`: it ends with its parent from its first line, before any slow import.

`starting` runs this file as a script; unpickling imports torch and laconic. The script's arguments are the parent's
process id, the file descriptor of the connection, and 1 if the kernel is to end this process with its parent. With a
last argument "template" it forks such processes on request instead, which find everything imported.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_TEMPLATE = "template"
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/dxg")


def main() -> None:
    """Make the requested object, and call its methods on request until the parent closes the connection."""
    parent, descriptor, by_kernel = (int(text) for text in sys.argv[1:4])
    # The parent handles Ctrl-C and ends its children. It started this process with the signal blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _end_with(parent, by_kernel=bool(by_kernel))
    os.set_inheritable(descriptor, False)
    if sys.argv[4:] == [_TEMPLATE]:
        descriptor = _forked(descriptor)
        _end_with(parent, by_kernel=True)
    threading.Thread(target=_end_with_input, daemon=True).start()
    for stream in (sys.stdout, sys.stderr):  # a user's method may print what the terminal's encoding does not have
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]

    from multiprocessing.connection import Connection

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
    from its main thread, which is also the one that adopts a forked child. In all other cases a thread here does it
    (`_end_with_input`).

    Args:
        parent: The parent's process id.
        by_kernel: Whether to request it from the kernel (Linux only).
    """
    if by_kernel and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the request to the kernel
        os._exit(1)


def _end_with_input() -> None:
    """End this process when standard input ends: a pipe whose other end only the parent holds."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def _forked(descriptor: int) -> int:
    """Import what children need, then fork one on each request that comes through a socket.

    Returns:
        In each child, the file descriptor of its connection.
    """
    import pickle
    import socket

    requests = socket.socket(fileno=descriptor)
    with requests.makefile("rb") as file:
        sys.path[:], modules = pickle.load(file)
    _preload(modules)
    if not _may_be_forked():
        os._exit(1)
    requests.sendall(b"y")
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 1, 5)
        if not request:
            os._exit(0)
        answer, release = _fork()
        if answer is None:
            requests.close()
            return _in_place(descriptors)
        for each in descriptors:
            os.close(each)
        requests.sendall(answer)
        os.close(release)


def _preload(modules: Sequence[str]) -> None:
    import gc
    from importlib import import_module
    from importlib.util import find_spec
    from pkgutil import iter_modules

    for name in modules:
        import_module(name)
    if find_spec("numba"):
        kernels = import_module("laconic.kernels.cpu")
        for module in iter_modules(kernels.__path__, f"{kernels.__name__}."):
            import_module(module.name)
    gc.collect()
    gc.freeze()  # children do not copy what a collection would write to


def _may_be_forked() -> bool:
    """Return whether no other thread runs, which a child would lack, and no GPU is open, which no child could use."""
    pid = os.fork()  # before the first fork, linear algebra libraries end the threads that they started when imported
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    folder = "/proc/self/fd"
    files = [os.path.realpath(f"{folder}/{descriptor}") for descriptor in os.listdir(folder)]
    return len(os.listdir("/proc/self/task")) == 1 and not any(file.startswith(_DEVICES) for file in files)


def _fork() -> tuple[bytes | None, int]:
    """Fork a child of this process's parent: one between them ends at once, and the parent adopts its child.

    Returns:
        In the child None, once it has its parent. In this process the answer to the parent, which is the child's
        process id or the negative number of an error, and a file descriptor: the child starts when it is closed.
    """
    reads_pid, writes_pid = os.pipe()
    held, release = os.pipe()
    middle = _fork_or_error()
    if middle == 0:
        pid = _fork_or_error()
        if pid:
            os.write(writes_pid, _bytes_of(pid))
            os._exit(0)
        for each in (reads_pid, writes_pid, release):
            os.close(each)
        os.read(held, 1)
        os.close(held)
        return None, -1
    os.close(writes_pid)
    os.close(held)
    if middle > 0:
        answer = os.read(reads_pid, 4) or _bytes_of(-errno.EAGAIN)  # it may be killed
        os.waitpid(middle, 0)
    else:
        answer = _bytes_of(middle)
    os.close(reads_pid)
    return answer, release


def _bytes_of(number: int) -> bytes:
    return number.to_bytes(4, "little", signed=True)


def _fork_or_error() -> int:
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or 1)


def _in_place(descriptors: Sequence[int]) -> int:
    """Take up what the parent has at this moment: its standard streams and working folder. Return the connection."""
    connection, *streams, folder = descriptors
    os.fchdir(folder)
    for number, each in enumerate(streams):
        os.dup2(each, number)
    for each in (*streams, folder):
        os.close(each)
    os.set_inheritable(connection, False)
    _open_output()
    sys.path_importer_cache.clear()  # files have come since
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # as every process has one of its own
    return connection


def _open_output() -> None:
    """Open standard output and error again, as Python does at its start: whether they can seek may have changed."""
    import io

    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        file = io.FileIO(number, "w", closefd=False)
        stream = io.TextIOWrapper(
            file if before.write_through else io.BufferedWriter(file),
            encoding=before.encoding,
            errors=before.errors,
            line_buffering=number == 2 or os.isatty(number),
            write_through=before.write_through,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


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
        sys.path[:], environment = line.load(line.receive())  # before the next pickle, which imports modules
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
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
