"""Plain torch in a process whose C library retains freed temporaries.

By default glibc returns every freed block above 32 MiB to the system, so that each torch operation on a large vector
pays for new pages. Its settings are read when a process starts. They have no effect on other C libraries.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch

from laconic.lab.processes.supervise import Child, end_all

SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


class RetainedHeap:
    """The process, which measures cases on request. A context manager that ends it at its exit."""

    def __init__(self, d: int, densities: Sequence[float]) -> None:
        self._child = Child("plain torch with retained temporaries", _Cases, d, tuple(densities), environment=SETTINGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_all([self._child])

    def in_copies(self, case: str, repeats: int) -> tuple[float, ...]:
        """Return plain torch's times in multiples of the median copy, measured in turns in that process.

        Args:
            case: The name of the kernel.
            repeats: The number of turns.

        Raises:
            LaunchError: The process has ended.
        """
        copies: tuple[float, ...] = self._child.call("in_copies", case=case, repeats=repeats)
        return copies


class _Cases:
    """The kernels, in that process."""

    def __init__(self, d: int, densities: Sequence[float]) -> None:
        from laconic.bench.cases import cases
        from laconic.bench.measure import vector_of  # which imports this module

        torch.set_num_threads(1)
        self._cases, self._vector = cases(densities), vector_of(d)

    def in_copies(self, case: str, repeats: int) -> tuple[float, ...]:
        from laconic.bench.measure import in_copies

        calls = self._cases[case].prepare(self._vector)
        copies, _ = in_copies({"torch": calls["torch"]}, self._vector, repeats)
        return copies["torch"]
