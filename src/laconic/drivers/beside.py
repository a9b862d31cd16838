"""A second thread for the workers' halves, while the caller computes the next worker's gradient.

Torch and compiled kernels release the interpreter's lock, so the two run side by side on two cores. No bit depends on
it: each worker has its own memory, its randomness is keyed, and its packet is taken in rank order.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from laconic.kernels.threads import CHUNK, kernel_threads

_LEAST_ENTRIES = CHUNK  # below this, handing work over costs more than it saves


class Beside:
    """Runs one piece of work at a time beside the caller's own. A context manager: at its end the thread is gone."""

    def __init__(self, d: int) -> None:
        """d: entries of the vectors that are worked on. Short ones, or no core to spare, leave all to the caller."""
        self._has_room = d >= _LEAST_ENTRIES and torch.get_num_threads() + kernel_threads() <= _cores()
        self._thread: ThreadPoolExecutor | None = None
        self._work: Future[None] | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Begin `work` when the one before it is through; what that one raised is raised here."""
        self.wait()
        if not self._has_room:
            work()
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="laconic-beside")
        self._work = self._thread.submit(_without_graph, work)

    def wait(self) -> None:
        """Return when nothing runs beside the caller. Raises what the work raised."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()  # what an earlier worker raised comes before what the caller did
        finally:
            if self._thread is not None:
                self._thread.shutdown()


@torch.no_grad()  # which holds for the calling thread alone
def _without_graph(work: Callable[[], None]) -> None:
    work()


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
