"""How child processes start: on Linux by fork from a template, in all other cases each as a fresh interpreter.

A fresh interpreter imports torch and this library, for seconds. A template has done so once, and forks children on
request in milliseconds. Nothing here imports torch. The other side is in `child.py`.
"""

import atexit
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from laconic.lab.defaults import LAUNCHER_VARIABLES

_SCRIPT = Path(__file__).with_name("child.py")
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37  # of <sys/prctl.h>
_POLL_S = 0.01
# What every process of a run imports. torch._dynamo: by its first optimizer, for longer than torch itself.
_PRELOADED = (
    "torch", "torch._dynamo", "laconic.lab.runs.launch", "laconic.lab.comparison.cell_process", "laconic.algorithms",
)  # fmt: skip
# Nothing reads these while it is imported. Any other variable may count before a process's first line.
_READ_LATE = frozenset(
    (*LAUNCHER_VARIABLES, "LOCAL_RANK", "GLOO_SOCKET_IFNAME", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST")
)
# Torch's compiler and scikit-learn set these when they are imported, where they are not set.
_SET_LATE = frozenset(("TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"))
# What else a process inherits, of /proc/self/status.
_INHERITED = ("Umask:", "Uid:", "Gid:", "Groups:", "SigIgn:", "Cap", "Seccomp:", "Cpus_allowed:", "Mems_allowed:")


class Forked:
    """A child of this process that a template has forked. It has the methods of `subprocess.Popen` that are used."""

    def __init__(self, pid: int) -> None:
        """Hold the process with this id."""
        self.pid = pid
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, or the negative number of the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: It still runs after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._ended(os.WNOHANG if deadline else 0) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired([], timeout or 0.0)
            time.sleep(_POLL_S)
        assert self._code is not None
        return self._code

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._ended(os.WNOHANG) is None:  # until then the id is that of no other process
            os.kill(self.pid, number)

    def _ended(self, options: int) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # somebody else in this process has waited for it
                self._code = 0
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def start(
    connection: int, lifeline: int, prefix: Sequence[str], environment: Mapping[str, str]
) -> "Forked | subprocess.Popen[bytes]":
    """Start a child.

    Args:
        connection: The file descriptor of its end of the connection to this process.
        lifeline: The descriptor of its standard input, whose other end this process holds.
        prefix: A command that executes the rest of its command line.
        environment: Environment variables beside those of this process. A forked child gets none by this call.

    Raises:
        OSError: It cannot be started.
    """
    if sys.platform == "linux" and not prefix and _READ_LATE.issuperset(environment):
        pid = _template.fork([connection, lifeline, 1, 2])
        if pid is not None:
            return Forked(pid)
    return _run(connection, prefix=prefix, stdin=lifeline, env=os.environ | environment)


def start_template() -> None:
    """Start the template now, so that it imports while this process does something else until its first child.

    Only the main thread does so, and only on Linux. What goes wrong is met at the first child.
    """
    if sys.platform == "linux":
        _template.prepare()


class _Template:
    """The template of this process. It is made for the first child, and again where the circumstances have changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._circumstances: tuple[object, ...] | None = None  # in which it was made, or found not to fit
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._is_ready = False  # whether it has imported everything

    def prepare(self) -> None:
        """Start it, and do not wait until it is ready."""
        with self._lock:
            if self._circumstances is None and _is_main_thread():
                with suppress(OSError):
                    self._make(_circumstances())

    def fork(self, descriptors: Sequence[int]) -> int | None:
        """Return the process id of a new child of this process; None if there is no template for it.

        Args:
            descriptors: Its connection, and its standard input, output and error.

        Raises:
            OSError: The system refuses.
        """
        with self._lock:
            # The kernel ends the template with the thread that starts it. So only the main thread does.
            if self._circumstances != (now := _circumstances()) and _is_main_thread():
                self._end()
                self._make(now)
            if self._line is None or self._circumstances != now or not self._has_become_ready(self._line):
                return None
            answer = self._answer_to(self._line, descriptors)
        if answer is not None and answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    def _make(self, circumstances: tuple[object, ...]) -> None:
        line, peer = socket.socketpair()
        try:
            with peer, _adopting():
                self._process = _run(
                    peer.fileno(), "template", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )  # fmt: skip
            line.sendall(pickle.dumps((sys.path, _PRELOADED)))
        except ConnectionError:  # it has failed, and so will a fresh interpreter, which says how
            line.close()
            self._end()
        except BaseException:
            line.close()
            self._end()
            raise
        else:
            self._line = line
        self._circumstances = circumstances

    def _has_become_ready(self, line: socket.socket) -> bool:
        """Wait until it has imported everything. If it has failed, end it: fresh interpreters say how."""
        if not self._is_ready:
            circumstances = self._circumstances
            try:
                self._is_ready = bool(line.recv(1))
            except ConnectionError:
                pass
            except BaseException:
                self._end()
                raise
            if not self._is_ready:
                self._end()
                self._circumstances = circumstances  # in which it does not fit
        return self._is_ready

    def _answer_to(self, line: socket.socket, descriptors: Sequence[int]) -> int | None:
        folder = os.open(".", os.O_PATH)
        try:
            with _interrupts_blocked(), _adopting():
                socket.send_fds(line, [b"f"], [*descriptors, folder])
                answer = line.recv(4)
        except ConnectionError:
            answer = b""
        except BaseException:
            self._end()  # the answer to this request is no answer to the next one
            raise
        finally:
            os.close(folder)
        if not answer:  # the template has been ended; the next child makes another one
            self._end()
            return None
        return int.from_bytes(answer, "little", signed=True)

    def end(self) -> None:
        """End the template."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._circumstances = self._process = self._line = None
        self._is_ready = False

    def disown(self) -> None:
        """In a copy of this process: leave the template to the original."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.returncode = 0  # nothing is to be waited for here
        self._lock = threading.Lock()
        self._circumstances = self._process = self._line = None
        self._is_ready = False


_template = _Template()
atexit.register(_template.end)
os.register_at_fork(after_in_child=_template.disown)


def _run(
    descriptor: int,
    *more: str,
    prefix: Sequence[str] = (),
    **options: Any,  # noqa: ANN401 - those of Popen
) -> "subprocess.Popen[bytes]":
    """Start a fresh interpreter that runs `child.py`."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    command = [
        *prefix, sys.executable, *flags, "-P", str(_SCRIPT),
        str(os.getpid()), str(descriptor), str(int(_is_main_thread())), *more,
    ]  # fmt: skip
    with _interrupts_blocked():
        return subprocess.Popen(command, pass_fds=[descriptor], **options)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _circumstances() -> tuple[object, ...]:
    """Return what a new process takes over from this one, but for what a template gets with each request."""
    variables = {name: value for name, value in os.environ.items() if name not in _READ_LATE | _SET_LATE}
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    status = Path("/proc/self/status").read_text().splitlines()
    inherited = [line for line in status if line.startswith(_INHERITED)]
    limits, priority = Path("/proc/self/limits").read_text(), os.getpriority(os.PRIO_PROCESS, 0)
    return variables, flags, inherited, limits, priority


@contextmanager
def _adopting() -> Iterator[None]:
    """Make this process the parent of each process below it whose own parent ends.

    Raises:
        OSError: The system refuses.
    """
    prctl, before = ctypes.CDLL(None, use_errno=True).prctl, ctypes.c_int()
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    if prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1)):
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(before.value))


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes with SIGINT blocked. In this process the signal is only delayed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
