"""Times each kernel on a vector of normal numbers, on one thread, in multiples of one copy of the vector."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from laconic.bench.cases import Calls, KernelCase, cases
from laconic.bench.heap import RetainedHeap
from laconic.bench.measure import Measurement, in_copies, quartiles, small_seconds, vector_of
from laconic.errors import Named, OptionError

SMALL_D = 1_000


def measure_kernels(
    d: int,
    densities: Sequence[float],
    repeats: int,
    *,
    retained: bool = True,
    only: str = "",
    listen: Callable[[str], None] = lambda name: None,
) -> Iterator[Measurement]:
    """Measure every kernel on the same float32 vector (d,).

    Args:
        d: The length of the vector.
        densities: Shares of elements that sparse methods select.
        repeats: The number of measurements of each.
        retained: Whether to measure plain torch also in a process that retains freed temporaries.
        only: A text that the kernels' names contain.
        listen: Gets the name of each kernel before it is measured.

    Yields:
        A row for each kernel by laconic, torch and other libraries.

    Raises:
        ValueError: No kernel's name contains `only`, or a density selects no element.
    """
    chosen = [case for name, case in cases(densities).items() if only in name]
    if not chosen:
        raise OptionError(Named("only", only, quoted=True), f" is in no kernel's name: {', '.join(cases(densities))}")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with RetainedHeap(d, densities) if retained else contextlib.nullcontext() as heap:
            vector = vector_of(d)
            for case in chosen:
                listen(case.name)
                yield from _rows_of(case, case.prepare(vector), vector, repeats, heap)
    finally:
        torch.set_num_threads(before)


def _rows_of(
    case: KernelCase, calls: Calls, vector: torch.Tensor, repeats: int, heap: RetainedHeap | None
) -> Iterator[Measurement]:
    copies, copy_s = in_copies(calls, vector, repeats)
    if heap is not None and "torch" in calls:
        copies["torch, retained"] = heap.in_copies(case.name, repeats)
    torches = {by: statistics.median(taken) for by, taken in copies.items() if by.startswith("torch")}
    ours = statistics.median(copies["laconic"])
    small = small_seconds(case.prepare(vector[:SMALL_D])["laconic"], repeats) if _has_small(case, vector) else None
    for by, taken in copies.items():
        details: dict[str, object] = {"copy_s": copy_s}
        if by == "laconic":
            better = min(torches, key=lambda by: torches[by], default=None)
            times = None if better is None else torches[better] / ours
            details |= {
                "bar_copies": case.bar, "better_torch": better, "times_faster": times,
                "times_bar": 5 if case.beats_torch and better is not None else None,
                "small_call_s": None if small is None else statistics.median(small),
                "small_call_quartiles_s": None if small is None else quartiles(small),
            }  # fmt: skip
        yield Measurement(name={"kernel": case.name, "by": by}, unit="copies", samples=taken, details=details)


def _has_small(case: KernelCase, vector: torch.Tensor) -> bool:
    """Return whether the kernel can run on a small vector: a density may select none of its elements."""
    if vector.numel() < SMALL_D:
        return False
    try:
        case.prepare(vector[:SMALL_D])
    except ValueError:
        return False
    return True
