"""Runs one function in several real processes and collects what each returned. Ranks meet in a store of this one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from laconic.lab.processes.ranks import Ranks
from support.deadlines import DEADLINE_S, PATIENCE_S

_events: dist.Store | None = None  # of this process, where it is a rank


@dataclass(frozen=True)
class Ended:
    """How one rank ended: its result, or the text of its error; neither when it was killed."""

    result: Any = None
    error: str = ""


def run_ranks(task: Callable[..., Any], n: int, *args: Any) -> list[Any]:
    """`task(rank, *args)` in n gloo processes; returns the results by rank, and fails if any rank failed."""
    ended = ends_of_ranks(task, n, *args)
    errors = [f"rank {rank}:\n{end.error}" for rank, end in enumerate(ended) if end.error]
    assert not errors, "\n".join(errors)
    return [end.result for end in ended]


def ends_of_ranks(task: Callable[..., Any], n: int, *args: Any) -> list[Ended]:
    """The same, but a rank may fail: how each ended, by rank."""
    with Ranks(n, _Actor, timeout_s=PATIENCE_S, limit_s=DEADLINE_S) as ranks:
        answers = ranks.answers("act", task=task, args=args)
    return [Ended(answer.result, "" if answer.ended else answer.trace or answer.failure) for answer in answers]


def announce(event: str) -> None:
    """Called by a rank: the ranks that wait for this event may go on."""
    assert _events is not None
    _events.set(event, "")


def wait_for(*events: str) -> None:
    """Called by a rank: return once all these events were announced."""
    assert _events is not None
    _events.wait(list(events))


class _Actor:
    """One rank."""

    def __init__(self) -> None:
        global _events
        store = dist.distributed_c10d._get_default_store()
        while isinstance(store, dist.PrefixStore):
            store = store.underlying_store
        # The group's own connection to the store is not for us to wait on.
        _events = dist.TCPStore(store.host, store.port, is_master=False, timeout=timedelta(seconds=PATIENCE_S))

    def act(self, task: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return task(dist.get_rank(), *args)
