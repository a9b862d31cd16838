"""Processes of this machine in one gloo group, told what to do over pipes, and ended by their own ids."""

import multiprocessing
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from laconic.benches.member import Member
from laconic.lab.children import LaunchError, end_all, interrupts_ignored

_HOST = "127.0.0.1"


class Crew:
    """`n` processes. A context manager: at its end all are gone."""

    def __init__(self, n: int, *, timeout_s: float = 300.0) -> None:
        """timeout_s: the longest that one command may take."""
        self._timeout_s = timeout_s
        # The store lives here, so it outlives any rank. Port 0 is any that is free.
        self._store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout_s))
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        try:
            with interrupts_ignored():
                for rank in range(n):
                    ours, theirs = context.Pipe()
                    given = (theirs, rank, n, self._store.port, timeout_s)
                    process = context.Process(target=_run, args=given, daemon=True)
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(ours)
        except BaseException:
            end_all(self._processes)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        end_all(self._processes)

    def do(self, command: str, **given: Any) -> list[Any]:  # noqa: ANN401
        """Have all ranks call one of `Member`'s methods; what each returned, by rank.

        Raises LaunchError where one fails, dies, or takes longer than `timeout_s`.
        """
        for rank, pipe in enumerate(self._pipes):
            try:
                pipe.send((command, given))
            except BrokenPipeError:
                raise LaunchError(f"rank {rank} has ended") from None
        deadline = time.monotonic() + self._timeout_s
        failures, answers = [], []
        for rank, pipe in enumerate(self._pipes):
            try:
                if not pipe.poll(max(0.0, deadline - time.monotonic())):
                    raise LaunchError(f"rank {rank} did not answer within {self._timeout_s:g} s ({command})")
                failed, answer = pipe.recv()
            except (EOFError, ConnectionResetError):
                failed, answer = True, "ended without a word"
            answers.append(answer)
            if failed:
                failures.append(f"rank {rank}: {answer}")
        if failures:
            raise LaunchError("\n".join(failures))
        return answers


def _run(pipe: Connection, rank: int, n: int, port: int, timeout_s: float) -> None:
    """A child process: answers commands until its pipe closes."""
    torch.set_num_threads(1)
    timeout = timedelta(seconds=timeout_s)
    store = TCPStore(_HOST, port, is_master=False, timeout=timeout)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timeout)
    member = Member()
    while True:
        try:
            command, given = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((False, getattr(member, command)(**given)))
        except Exception as error:
            pipe.send((True, f"{type(error).__name__}: {error}"))
