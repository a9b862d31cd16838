"""Child processes of this machine, which end with their parent.

Nothing here imports torch. Their start is in `starting.py`, the child's side in `child.py`.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.errors import LaunchError
from laconic.lab.processes.starting import Forked, start

_END_S = 1.0  # between terminating children and killing them


@dataclass(frozen=True)
class Report:
    """A value that a running method passed to its argument `report`."""

    content: Any


@dataclass(frozen=True)
class Answer:
    """The result of a method, or its failure."""

    result: Any = None
    failure: str = ""
    """The error message; empty if there is a result."""
    trace: str = ""
    """The traceback of the failure, if an exception caused it."""
    ended: bool = False
    """Whether the process ended before it answered."""


class Child:
    """A process that holds one object, whose methods are called from here. It ends when this process ends.

    The process makes the object by `make(*arguments)`. `make` is pickled by name, so it must be at the top of a
    module. Use a child in the thread that made it, or make it in the main thread (see `child.py`).
    """

    def __init__(
        self,
        name: str,
        make: Callable[..., Any],
        *arguments: object,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process.

        Args:
            name: The name in error messages.
            make: Makes the object.
            *arguments: The arguments of `make`.
            prefix: A command that executes the rest of its command line, such as `ip netns exec`.
            environment: Environment variables beside those of this process.

        Raises:
            LaunchError: The process cannot be started.
        """
        self.name = name
        payload = pickle.dumps((make, arguments), pickle.HIGHEST_PROTOCOL)
        self.connection, peer = multiprocessing.Pipe()
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = start(peer.fileno(), lifeline, prefix, environment or {})
        except BaseException as error:
            self._close()
            if not isinstance(error, OSError):
                raise
            raise LaunchError(f"{name}: its process could not be started: {error}") from error
        finally:
            peer.close()
            os.close(lifeline)
        variables = os.environ | (environment or {}) if isinstance(self._process, Forked) else None
        self._send(pickle.dumps((sys.path, variables)))
        self._send(payload)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def request(self, method: str, arguments: Mapping[str, Any], *, reports: bool = False) -> None:
        """Start a call of the object's method; `receive` returns its messages.

        Args:
            method: The name of the method.
            arguments: Its keyword arguments.
            reports: Whether to pass a function as its argument `report`, which sends a `Report`.
        """
        self._send(pickle.dumps((method, dict(arguments), reports), pickle.HIGHEST_PROTOCOL))

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the process has ended, and `receive` reports how
            self.connection.send_bytes(data)

    def receive(self) -> Report | Answer:
        """Wait for the next message. If the process has ended, return an answer that says how."""
        try:
            kind, content = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return Answer(failure=self._ending(), ended=True)
        if kind == "report":
            return Report(content)
        if kind == "result":
            return Answer(content)
        failure, trace = content
        return Answer(failure=failure, trace=trace)

    def call(self, method: str, /, **arguments: Any) -> Any:  # noqa: ANN401
        """Call a method and return its result.

        Raises:
            LaunchError: The method fails or the process has ended.
        """
        self.request(method, arguments)
        answer = self.receive()
        assert isinstance(answer, Answer)
        if answer.failure:
            raise self.error(answer)
        return answer.result

    def error(self, answer: Answer) -> LaunchError:
        """Return the exception for a failure."""
        return LaunchError(f"{self.name}: {'its process ' if answer.ended else ''}{answer.failure}")

    def _ending(self) -> str:
        """Return how the process ended. It has closed its connection, so it is killed if it still runs."""
        code = self._wait(time.monotonic() + _END_S)
        if code >= 0:
            return f"ended with exit code {code}"
        names = {number.value: number.name for number in signal.Signals}
        return f"was ended by {names.get(-code, f'signal {-code}')}"

    def _wait(self, deadline: float) -> int:
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _close(self) -> None:
        self.connection.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def end_all(children: Sequence[Child]) -> None:
    """End every child: terminate it, wait for it, and kill it if it does not end."""
    for child in children:
        child._process.terminate()
    deadline = time.monotonic() + _END_S
    for child in children:
        child._wait(deadline)
        child._close()
