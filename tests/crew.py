"""Runs one function in several real processes and collects what each returned. Ranks meet in a store of this one."""

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_LIMIT_S = 240


@dataclass(frozen=True)
class Ended:
    """How one rank ended: its result, or the text of its error; neither when it was killed."""

    result: Any = None
    error: str = ""


def run_crew(task: Callable[..., Any], n: int, meeting: Path, *args: Any) -> list[Any]:
    """`task(rank, *args)` in n gloo processes; returns the results by rank, and fails if any rank failed."""
    ended = crew_endings(task, n, meeting, *args)
    errors = [f"rank {rank}:\n{end.error}" for rank, end in enumerate(ended) if end.error]
    assert not errors, "\n".join(errors)
    return [end.result for end in ended]


def crew_endings(task: Callable[..., Any], n: int, meeting: Path, *args: Any) -> list[Ended]:
    """The same, but a rank may fail: how each ended, by rank."""
    context = multiprocessing.get_context("spawn")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # any free port
    pipes = [context.Pipe() for _ in range(n)]
    crew = [
        context.Process(target=_member, args=(pipes[rank][1], rank, n, store.port, task, args)) for rank in range(n)
    ]
    for process in crew:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    deadline = time.monotonic() + _LIMIT_S
    endings = [_ending(ours, deadline) for ours, _ in pipes]
    for ours, _ in pipes:
        ours.close()  # all is read
    for process in crew:
        process.join(max(0.1, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
    return endings


def _ending(pipe: Any, deadline: float) -> Ended:
    try:
        return pipe.recv() if pipe.poll(max(0.0, deadline - time.monotonic())) else Ended(error="no answer in time")
    except EOFError:
        return Ended()


def _member(pipe: Any, rank: int, n: int, port: int, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n)
    try:
        pipe.send(Ended(result=task(rank, *args)))
        with contextlib.suppress(
            EOFError, OSError
        ):  # tensors lie in this process's memory until the other one has read them
            pipe.recv()
    except Exception:
        pipe.send(Ended(error=traceback.format_exc()))
        pipe.close()
        os._exit(1)  # a process group with a lost rank cannot be taken down in order
    dist.barrier()
    dist.destroy_process_group()
