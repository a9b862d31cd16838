"""Runs one function in several real processes and collects what each returned. They share a store of this process.

The processes are forked from one that has imported `support.preloaded`: a fraction of what each would take to start.
"""

import contextlib
import functools
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import forkserver
from typing import Any

import pytest
import torch
import torch.distributed as dist

from laconic.lab.processes.ranks import loopback_interface
from laconic.torch_compat import open_store
from support.deadlines import DEADLINE_S, PATIENCE_S

_HOST = "127.0.0.1"
_PATIENCE = timedelta(seconds=PATIENCE_S)
_events: dist.Store | None = None  # of this process, where it is a rank


@dataclass(frozen=True)
class RankEnding:
    """How one rank ended: its result, or the text of its error; neither when it was killed."""

    result: Any = None
    error: str = ""


def run_ranks(task: Callable[..., Any], n: int, *args: Any) -> list[Any]:
    """`task(rank, *args)` in n gloo processes; returns the results by rank, and fails if any rank failed."""
    return Launch(task, n, *args).results()


def ends_of_ranks(task: Callable[..., Any], n: int, *args: Any) -> list[RankEnding]:
    """The same, but a rank may fail; returns how each ended, by rank."""
    return Launch(task, n, *args).ends()


class Launch:
    """`task(rank, *args)` in n gloo processes, which run from here on: several launches may wait at the same time."""

    def __init__(self, task: Callable[..., Any], n: int, *args: Any) -> None:
        context = fork_server()
        self._store = open_store(_HOST, 0, PATIENCE_S)  # any free port
        pipes = [context.Pipe() for _ in range(n)]
        self._processes = [
            context.Process(target=_run, args=(pipes[rank][1], rank, n, self._store.port, task, args))
            for rank in range(n)
        ]
        for process in self._processes:
            process.start()
        for _, far_end in pipes:
            far_end.close()
        self._pipes = [pipe for pipe, _ in pipes]
        self._deadline = time.monotonic() + DEADLINE_S

    def ends(self) -> list[RankEnding]:
        """How each rank ended, by rank. To be called once."""
        ended = [_end_of(pipe, self._deadline) for pipe in self._pipes]
        for pipe in self._pipes:
            pipe.close()  # all is read
        for process in self._processes:
            process.join(max(0.1, self._deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
        return ended

    def results(self) -> list[Any]:
        """What each rank returned, by rank; fails if any rank failed. To be called once."""
        ended = self.ends()
        errors = [f"rank {rank}:\n{end.error}" for rank, end in enumerate(ended) if end.error]
        assert not errors, "\n".join(errors)
        return [end.result for end in ended]


def announce(event: str) -> None:
    """Called by a rank: the ranks that wait for this event may go on."""
    assert _events is not None
    _events.set(event, "")


def wait_for(*events: str) -> None:
    """Called by a rank: return once all these events were announced."""
    assert _events is not None
    _events.wait(list(events))


@functools.cache
def fork_server() -> Any:
    """Return the way to start processes that are forked from one that has imported `support.preloaded`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # it imports before it gets ours
        patch.setenv("GLOO_SOCKET_IFNAME", loopback_interface())  # the ranks listen on no other
        forkserver.ensure_running()
    return context


def _end_of(pipe: Any, deadline: float) -> RankEnding:
    try:
        return (
            pipe.recv() if pipe.poll(max(0.0, deadline - time.monotonic())) else RankEnding(error="no answer in time")
        )
    except EOFError:
        return RankEnding()


def _run(pipe: Any, rank: int, n: int, port: int, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
    global _events
    torch.set_num_threads(1)
    # The group's connection to the store is not for us to wait on.
    store, _events = (dist.TCPStore(_HOST, port, is_master=False, timeout=_PATIENCE) for _ in range(2))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=_PATIENCE)
    try:
        pipe.send(RankEnding(result=task(rank, *args)))
        with contextlib.suppress(
            EOFError, OSError
        ):  # tensors lie in this process's memory until the other one has read them
            pipe.recv()
    except Exception:
        pipe.send(RankEnding(error=traceback.format_exc()))
        pipe.close()
        os._exit(1)  # a process group with a lost rank cannot be taken down in order
    dist.barrier()
    dist.destroy_process_group()
