"""Processes of this machine in one gloo group. Each holds an object whose methods are called from here."""

import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from laconic.errors import LaunchError, Named, OptionError
from laconic.lab.processes.supervise import Answer, Child, Report, end_all
from laconic.statements import warn
from laconic.torch_compat import TCPStore, open_store

_HOST = "127.0.0.1"
_AFTERMATH_S = 1.0  # after a failure, the time in which other ranks may fail because of it
_AFTERMATH = ("PeerLostError", "onnection closed by peer", "onnection reset by peer")  # their messages, ours and gloo's
_INTERFACE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where a rank runs."""

    prefix: tuple[str, ...] = ()
    """A command that executes the rank's command line, as in `Child`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the rank, as in `Child`."""


class Ranks:
    """`n` processes in one gloo group, which meet in a TCP store. A context manager that ends them at its exit."""

    def __init__(
        self,
        n: int,
        make: Callable[..., Any],
        *arguments: object,
        timeout_s: float = 300.0,
        limit_s: float = math.inf,
        port: int = 0,
        hosts: Sequence[Host] | None = None,
        address: str | None = None,
    ) -> None:
        """Start the processes.

        Args:
            n: The number of ranks.
            make: Makes each rank's object once the rank is in the group.
            *arguments: The arguments of `make`.
            timeout_s: Seconds that a rank waits for another.
            limit_s: Maximum seconds of one call.
            port: The port of the store; 0 takes a free one.
            hosts: Where the ranks run, one per rank; None runs all in this environment.
            address: Rank 0's address, if the ranks cannot reach a store of this process. Rank 0 then opens the store
                at `port`.

        Raises:
            OptionError: The port is in use.
            LaunchError: A process cannot be started.
        """
        self._timeout_s, self._limit_s = timeout_s, limit_s
        # A store of this process outlives any rank.
        self._store = _open_store(port, timeout_s) if address is None else None
        meeting = (address or _HOST, port if self._store is None else self._store.port)
        self._children: list[Child] = []
        try:
            for rank, host in enumerate(hosts or [Host(environment={"LOCAL_RANK": str(rank)}) for rank in range(n)]):
                opens = self._store is None and rank == 0
                self._children.append(
                    Child(
                        f"rank {rank}", _join, meeting, opens, rank, n, timeout_s, make, arguments,
                        prefix=host.prefix, environment=host.environment,
                    )
                )  # fmt: skip
        except BaseException:
            end_all(self._children)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_all(self._children)

    def call(
        self,
        method: str,
        /,
        *,
        listen: Callable[[Any], None] | None = None,
        decisive: int | None = None,
        **arguments: Any,  # noqa: ANN401
    ) -> list[Any]:
        """Call the same method on all ranks.

        Args:
            method: The name of the method.
            listen: Gets what the method passes to its argument `report`, as it arrives.
            decisive: The rank whose result stands for all, if there is one: once it is there, another rank whose
                process ends only causes a warning.
            **arguments: The arguments of the method.

        Returns:
            The results by rank; None of a rank that has ended so.

        Raises:
            LaunchError: A rank fails, ends, or takes longer than `limit_s`. The message names the rank that failed
                first, not those that waited for it.
        """
        answers = self._answers(method, arguments, listen, all_of_them=False)
        failures = {rank: answer for rank, answer in sorted(answers.items()) if answer.failure}
        decided = decisive is not None and decisive in answers and decisive not in failures
        if decided and all(answer.ended for answer in failures.values()):
            for rank, answer in failures.items():
                warn(f"rank {rank}: its process {answer.failure} at the end of a run whose result is complete")
        elif failures:
            causes = {rank: answer for rank, answer in failures.items() if _is_cause(answer)} or failures
            raise LaunchError("\n".join(_by_failure(causes)))
        return [answers[rank].result if rank in answers else None for rank in range(len(self._children))]

    def answers(self, method: str, /, **arguments: Any) -> list[Answer]:  # noqa: ANN401
        """Call the same method on all ranks, and return each rank's answer. For ranks that may fail or end."""
        answers = self._answers(method, arguments, None, all_of_them=True)
        return [answers[rank] for rank in range(len(self._children))]

    def _answers(
        self, method: str, arguments: Mapping[str, Any], listen: Callable[[Any], None] | None, *, all_of_them: bool
    ) -> dict[int, Answer]:
        """Return the answers by rank. `all_of_them` also waits for the other ranks after a failure."""
        for child in self._children:
            child.request(method, arguments, reports=listen is not None)
        deadline = limit = time.monotonic() + self._limit_s
        awaited: dict[Any, int] = {child.connection: rank for rank, child in enumerate(self._children)}
        answers: dict[int, Answer] = {}
        while awaited:
            left_s = max(0.0, deadline - time.monotonic())
            ready = wait(list(awaited), None if left_s == math.inf else left_s)
            if not ready:
                break
            for connection in ready:
                rank = awaited[connection]
                message = self._children[rank].receive()
                if isinstance(message, Report):
                    assert listen is not None
                    listen(message.content)
                    continue
                answers[rank] = message
                del awaited[connection]
                if message.failure and not all_of_them:
                    # A rank that reports a timeout has waited for timeout_s; the rank that caused it may answer later.
                    patience_s = _AFTERMATH_S + (0.0 if _is_cause(message) else self._timeout_s)
                    deadline = min(deadline, time.monotonic() + patience_s)
        if deadline == limit:
            late = Answer(failure=f"did not answer within {self._limit_s:g} s ({method})")
            answers |= dict.fromkeys(awaited.values(), late)
        return answers


def _by_failure(answers: Mapping[int, Answer]) -> list[str]:
    """Return a line for each failure, with the ranks that it befell: a model that raises does so on all of them."""
    ranks: dict[str, list[str]] = {}
    for rank, answer in answers.items():
        ranks.setdefault(answer.failure, []).append(str(rank))
    return [f"rank{'s' * (len(own) > 1)} {', '.join(own)}: {failure}" for failure, own in ranks.items()]


def _is_cause(answer: Answer) -> bool:
    """Return whether the failure is a cause. The other failures only name the rank that was waited for."""
    return not any(words in answer.failure for words in _AFTERMATH)


def loopback_interface() -> str:
    """Return the name of this machine's interface to itself."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name.startswith("lo")), "lo")


def _open_store(port: int, timeout_s: float) -> TCPStore:
    try:
        return open_store(_HOST, port, timeout_s)
    except OSError as error:
        raise OptionError(
            Named("port", port), f" is in use on {_HOST} (or not allowed); give another, or leave it out for a free one"
        ) from error


def _join(
    meeting: tuple[str, int],
    opens: bool,
    rank: int,
    n: int,
    timeout_s: float,
    make: Callable[..., Any],
    arguments: Sequence[object],
) -> object:
    """Join the group as one rank, then make the object. Nothing listens at more than one address."""
    torch.set_num_threads(1)
    timeout = timedelta(seconds=timeout_s)
    host, port = meeting
    if host == _HOST:  # all ranks are on this machine, and the engine would listen where this machine's name leads
        os.environ[_INTERFACE] = loopback_interface()
    if opens:
        store = open_store(host, port, timeout_s)
    else:
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timeout)
    return make(*arguments)
