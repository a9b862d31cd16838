"""Times each LLVM kernel and its plain-numba twin in turns."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from laconic.bench.cases import cases
from laconic.bench.measure import Measurement, vector_of
from laconic.errors import Named, OptionError
from laconic.kernels import api

BAR = 1.3
"""How many times as long as the kernel its twin must take (`docs/kernels.md`)."""
_SAMPLE_S = 2e-3  # a sample of a short call is a mean over several
_DENSITY, _LR = 0.01, 0.1
_KEY = 12345
_SHARE = int(0.3 * (1 << 32))


def measure_twins(
    sizes: Sequence[int], repeats: int, *, only: str = "", listen: Callable[[str], None] = lambda name: None
) -> Iterator[Measurement]:
    """Measure every LLVM kernel and its twin on float32 vectors, on one thread.

    Args:
        sizes: The lengths of the vectors.
        repeats: The number of turns.
        only: A text that the kernels' names contain.
        listen: Gets the name of each kernel before it is measured.

    Yields:
        For each kernel and length the twin's time over the kernel's, turn by turn.

    Raises:
        OptionError: No kernel's name contains `only`.
    """
    chosen = [each for each in CALLS if only in each[0]]
    if not chosen:
        names = ", ".join(dict.fromkeys(name for name, _ in CALLS))
        raise OptionError(Named("only", only, quoted=True), f" is in no LLVM kernel's name: {names}")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, call in chosen:
            listen(f"{name}: {call}")
            for d in sizes:
                yield _row_of(name, call, d, repeats)
    finally:
        torch.set_num_threads(before)


def _row_of(name: str, what: str, d: int, repeats: int) -> Measurement:
    vector = vector_of(d)
    call, copy = call_of(what, vector), torch.empty_like(vector)
    call()  # which compiles
    with api.twin_in_place(name):
        call()
    n_calls = max(1, int(_SAMPLE_S / max(cpu_seconds_of(call), 1e-9)))

    def calls() -> None:
        for _ in range(n_calls):
            call()

    taken: list[tuple[float, float]] = []
    copies = []
    for _ in range(repeats):
        kernel_s = cpu_seconds_of(calls) / n_calls
        with api.twin_in_place(name):
            taken.append((kernel_s, cpu_seconds_of(calls) / n_calls))
        copies.append(cpu_seconds_of(lambda: copy.copy_(vector)))
    copy_s = statistics.median(copies)
    return Measurement(
        name={"kernel": name, "call": what, "d": d}, unit="times",
        samples=tuple(plain_s / kernel_s for kernel_s, plain_s in taken),
        details={
            "copy_s": copy_s, "bar": BAR,
            "copies": statistics.median(kernel_s for kernel_s, _ in taken) / copy_s,
            "plain_copies": statistics.median(plain_s for _, plain_s in taken) / copy_s,
        },
    )  # fmt: skip


def cpu_seconds_of(function: Callable[[], object]) -> float:
    """Return the seconds that this thread computes in one call; other processes do not count."""
    start = time.thread_time()
    function()
    return time.thread_time() - start


def call_of(what: str, vector: Tensor) -> Callable[[], object]:
    """Return a call for a float32 vector (d,), by its name in `CALLS`."""
    return _OWN[what](vector) if what in _OWN else cases(())[what].prepare(vector)["laconic"]


def _put(vector: Tensor) -> Callable[[], object]:
    packed, _ = api.pack_signs(vector, 0, _KEY, _SHARE)
    sampled, _ = api.selected_bits(0, vector.numel(), _KEY, _SHARE)
    out = torch.empty_like(vector)

    def call() -> Tensor:
        api.put_signs(packed, 0, _KEY, _SHARE, out, sampled)
        return out

    return call


def _add(vector: Tensor) -> Callable[[], object]:
    packed, _ = api.pack_signs(vector, 0, _KEY, _SHARE)
    sampled, _ = api.selected_bits(0, vector.numel(), _KEY, _SHARE)
    total = torch.zeros(vector.numel(), dtype=torch.int8)

    def call() -> Tensor:
        api.add_signs(packed, 0, _KEY, _SHARE, total, sampled)
        return total

    return call


def _add_float(vector: Tensor) -> Callable[[], object]:
    packed, _ = api.pack_signs(vector, 0, _KEY, 1 << 32)
    total = vector.clone()

    def call() -> Tensor:
        api.add_signs(packed, 0, _KEY, 1 << 32, total)
        return total

    return call


def _count(vector: Tensor) -> Callable[[], object]:
    return lambda: api.count_selected(0, vector.numel(), _KEY, _SHARE)


def _correct_signs(vector: Tensor) -> Callable[[], object]:
    gradient, residual = vector.clone(), torch.zeros_like(vector)
    return lambda: api.correct_signs(gradient, residual, (vector.numel(),))


def _gather_top_k(vector: Tensor) -> Callable[[], object]:
    d, out, residual, guesses = vector.numel(), torch.empty_like(vector), vector.roll(1), api.Guesses()
    return lambda: api.gather_top_k([vector], [-_LR], out, residual, [(d, int(_DENSITY * d))], guesses)


_OWN: dict[str, Callable[[Tensor], Callable[[], object]]] = {
    "put signs on a sampled mask": _put,
    "add signs on a sampled mask, int8": _add,
    "add signs, float32": _add_float,
    "count selected": _count,
    "correct, signs and their mean": _correct_signs,
    "add the residual and select": _gather_top_k,
}


CALLS = (
    ("vectors.selected", "count selected"),
    ("vectors.add_signs_at", "add signs, float32"),
    ("vectors.add_signs_at", "add signs on a sampled mask, int8"),
    ("vectors.compress", "sign + pack, masked"),
    ("vectors.expand", "put signs on a sampled mask"),
    ("error_feedback.step", "sign step: mask, residual"),
    ("error_feedback.total", "server's step: mask, residual"),
    ("residuals.correct_run", "correct, signs and their mean"),
    ("scaled_answers.mean_run", "scaled signs: server's pass, 2"),
    ("stochastic_rounding.draw_groups", "quantize + pack, 2 bits"),
    ("stochastic_rounding.draw_groups", "quantize + pack, 4 bits"),
    ("stochastic_rounding.draw_groups", "quantize + pack, 8 bits"),
    ("stochastic_rounding.draw_groups", "levels of blocks of 512"),
    ("reductions.run_squares", "norm"),
    ("level_sums", "fractional, 4 bits"),
    ("gathered_top_k.scaled_at", "add the residual and select"),
)
"""Each LLVM kernel, and calls that spend their time there: names in `cases`, or in `_OWN`."""
