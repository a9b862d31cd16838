"""The face of the kernels: arithmetic on flat vectors, run by the fastest backend for the tensor's device.

`reference` defines each function, in torch, for any device; its docstrings are the full documentation. `cpu` has the
same names and signatures compiled by numba, `gpu` in Triton. All give the same bits, except where a docstring in
`reference` states a tolerance. `dispatch` chooses.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.families import CPU, fastest
from laconic.kernels.plain_gaps import Codes, Numbers, Words
from laconic.kernels.vectors import add_at as add_at
from laconic.kernels.vectors import add_into as add_into
from laconic.kernels.vectors import all_finite as all_finite
from laconic.kernels.vectors import clear_at as clear_at
from laconic.kernels.vectors import divide as divide
from laconic.kernels.vectors import gather as gather
from laconic.kernels.vectors import gather_change as gather_change
from laconic.kernels.vectors import gather_scaled as gather_scaled
from laconic.kernels.vectors import scatter as scatter
from laconic.kernels.vectors import take_at as take_at


def top_k(vector: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest magnitudes, exactly; of equal ones, the lower index comes first.

    Args:
        vector: (d,) float32 or float64. NaN counts as larger than infinity.
        k: 1 .. d.

    Returns:
        (k,) int64, ascending.

    Raises:
        TypeError: The vector has another type or shape.
        ValueError: k is outside 1 .. d.
    """
    if vector.ndim != 1 or vector.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"top_k takes (d,) float32 or float64, not {vector.dtype} of shape {tuple(vector.shape)}")
    d = vector.numel()
    if not 1 <= k <= d:
        raise ValueError(f"top_k: k={k} must be in 1 .. d={d}; take fewer entries, or at least one")
    made: Tensor = fastest("top_k", vector.device).top_k(vector, k)
    return made


def ascending(positions: Tensor, count: int) -> bool:
    """Return whether positions ascend, each once, within 0 .. count - 1; see `reference/position_streams.py`."""
    made: bool = fastest("positions", positions.device).ascending(positions, count)
    return made


def put_numbers(numbers: Tensor, width: int) -> Tensor:
    """Write numbers of one width into a bit stream; see `reference/position_streams.py`, as for the next three."""
    made: Tensor = fastest("positions", numbers.device).put_numbers(numbers, width)
    return made


def take_numbers(data: Tensor, k: int, width: int) -> Tensor:
    """Read numbers of one width from a bit stream."""
    made: Tensor = fastest("positions", data.device).take_numbers(data, k, width)
    return made


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """Write positions as a bit stream of runs and numbers; return it and the bits used."""
    family = fastest("positions", positions.device)
    made: tuple[Tensor, int] = family.put_runs(positions, width, step, from_last, n_bits)
    return made


def take_runs(
    data: Tensor, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Tensor, int]:
    """Read positions from a bit stream of runs and numbers; return them and the bits used, or -1."""
    family = fastest("positions", data.device)
    made: tuple[Tensor, int] = family.take_runs(data, n_bits, k, width, step, count, from_last)
    return made


def push_gaps(positions: Numbers, starts: Numbers) -> tuple[Words, int]:
    """Encode positions by their gaps with an ANS, in the host's memory; see `reference/ans_gaps.py`."""
    made: tuple[Words, int] = fastest("gaps").push_gaps(positions, starts)
    return made


def pop_gaps(words: Words, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """Decode positions; return them and whether the stream held them and nothing else."""
    made: tuple[Numbers, bool] = fastest("gaps").pop_gaps(words, top, k, starts, count)
    return made


def push_symbols(symbols: Codes, starts: Numbers) -> tuple[Words, int]:
    """Encode symbols with an ANS; see `reference/ans_symbols.py`."""
    made: tuple[Words, int] = fastest("symbols").push_symbols(symbols, starts)
    return made


def pop_symbols(words: Words, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """Decode symbols; return them and whether the stream held them and nothing else."""
    made: tuple[Codes, bool] = fastest("symbols").pop_symbols(words, top, k, starts)
    return made


def most_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest vote counts, the lowest in `order` first; see `reference/votes.py`."""
    assert 1 <= k <= votes.numel(), (k, votes.numel())
    made: Tensor = fastest("votes", votes.device).most_voted(votes, order, k)
    return made


def tally(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the positions in any of several lists, and in how many lists each is; see `reference/votes.py`."""
    if not lists:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    made: tuple[Tensor, Tensor] = fastest("votes", lists[0].device).tally(lists)
    return made


def hash_at(positions: Tensor, key: int) -> Tensor:
    """Return 32 random bits for each of the positions (n,) int64: (n,) int32; see `reference/hashing.py`."""
    made: Tensor = fastest("votes", positions.device).hash_at(positions, key)
    return made


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return packed codes in levels of equal ratio, and the levels' means; see `reference/fractional.py`, as below.

    Args:
        values: (K,) float32 or float64, K >= 1.
        bits: 1 .. 16.
    """
    assert 1 <= bits <= 16, bits
    assert values.numel() >= 1
    made: tuple[Tensor, Tensor] = fastest("fractional", values.device).fractional_codes(values, bits)
    return made


def fractional_dense(packed: Tensor, means: Tensor, count: int, bits: int) -> Tensor:
    """Return what such packed codes stand for."""
    made: Tensor = fastest("fractional", packed.device).fractional_dense(packed, means, count, bits)
    return made


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """Add what such packed codes stand for to `total`."""
    fastest("fractional", packed.device).add_fractional(packed, means, count, bits, total)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack (K,) int32 in 0 .. 2**bits - 1 into (ceil(bits K / 8),) uint8, `bits` bits a code, lowest bits first."""
    made: Tensor = fastest("fractional", codes.device).pack_codes(codes, bits)
    return made


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """Invert `pack_codes`: (ceil(bits k / 8),) uint8 -> (k,) int32."""
    made: Tensor = fastest("fractional", packed.device).unpack_codes(packed, k, bits)
    return made


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, first: int, key: int
) -> Tensor:
    """Return packed codes of values, rounded stochastically; see `reference/stochastic_rounding.py`, also below."""
    made: Tensor = fastest("quantized", values.device).quantize(values, lows, highs, lengths, bits, first, key)
    return made


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """Return the grid points that packed codes stand for."""
    made: Tensor = fastest("quantized", packed.device).dequantize(packed, lows, highs, lengths, bits)
    return made


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, total: Tensor
) -> None:
    """Add the grid points that packed codes stand for to `total`."""
    fastest("quantized", packed.device).add_dequantized(packed, lows, highs, lengths, bits, total)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, first: int, key: int
) -> Tensor:
    """Return packed signed levels of values, rounded stochastically."""
    made: Tensor = fastest("quantized", values.device).quantize_levels(values, scales, lengths, steps, first, key)
    return made


def levels_dense(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """Return the values that packed levels stand for."""
    made: Tensor = fastest("quantized", packed.device).levels_dense(packed, scales, lengths, steps)
    return made


def add_levels(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, total: Tensor) -> None:
    """Add the values that packed levels stand for to `total`."""
    fastest("quantized", packed.device).add_levels(packed, scales, lengths, steps, total)


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """Return whether packed levels are within their range, and no zero has a minus sign."""
    made: bool = fastest("quantized", packed.device).levels_allowed(packed, count, steps)
    return made


def ranges(values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the minimum and the maximum of each block."""
    made: tuple[Tensor, Tensor] = fastest("quantized", values.device).ranges(values, lengths)
    return made


def peaks(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the absolute maximum of each block."""
    made: Tensor = fastest("quantized", values.device).peaks(values, lengths)
    return made


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the L2 norm of each block."""
    made: Tensor = fastest("quantized", values.device).norms(values, lengths)
    return made


def count_kept(first: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> int:
    """Return how many coordinates a keyed mask selects; see `reference/signs.py`, as for all of signs below."""
    made: int = fastest("signs", device).count_kept(first, count, key, threshold, device)
    return made


def kept_bits(first: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> tuple[Tensor, int]:
    """Return which coordinates the mask selects, as bits, and how many."""
    made: tuple[Tensor, int] = fastest("signs", device).kept_bits(first, count, key, threshold, device)
    return made


def count_ones(packed: Tensor, cuts: Sequence[int]) -> list[int]:
    """Return how many bits of a packed stream are set between neighboring bounds; see `reference/popcount.py`."""
    made: list[int] = fastest("counts").count_ones(packed, cuts)
    return made


def pack_signs(values: Tensor, first: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """Return the packed signs of the selected elements, and how many are selected."""
    made: tuple[Tensor, int] = fastest("signs", values.device).pack_signs(values, first, key, threshold)
    return made


def put_signs(packed: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """Write -1 or +1 at the selected elements of `out`, and 0 elsewhere."""
    fastest("signs", out.device).put_signs(packed, first, key, threshold, out, drawn)


def add_signs(packed: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """Add -1 or +1 at the selected elements of `total`, which may be int8."""
    fastest("signs", total.device).add_signs(packed, first, key, threshold, total, drawn)


def cut_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """Return the bits low .. high-1 of a packed stream as a stream of their own."""
    made: Tensor = fastest("signs", packed.device).cut_bits(packed, low, high)
    return made


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """Return the majority of several voters' packed signs; +1 for a tie."""
    made: Tensor = fastest("signs", packed[0].device).majority(packed, count)
    return made


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """Average momentum and gradient over `gradient`, and return its packed signs."""
    made: Tensor = fastest("signs", gradient.device).momentum_signs(gradient, momentum, mu=mu)
    return made


def owe_step(
    pieces: Sequence[Tensor], momentum: Tensor, debt: Tensor, new_momentum: Tensor, new_debt: Tensor,
    *, mu: float, decay: float, c: float, first: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:  # fmt: skip
    """Take a worker's step with momentum, error feedback and signs on a keyed mask, in one pass."""
    made: tuple[Tensor, int, Tensor | None, bool] = fastest("signs", new_debt.device).owe_step(
        pieces, momentum, debt, new_momentum, new_debt,
        mu=mu, decay=decay, c=c, first=first, key=key, threshold=threshold,
    )  # fmt: skip
    return made


def owe_total(
    total: Tensor, debt: Tensor, new_debt: Tensor,
    *, among: int, scale: float, decay: float, c: float, first: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None]:  # fmt: skip
    """Take the server's step of the same methods."""
    made: tuple[Tensor, int, Tensor | None] = fastest("signs", total.device).owe_total(
        total, debt, new_debt, among=among, scale=scale, decay=decay, c=c, first=first, key=key, threshold=threshold
    )
    return made


def power_codes(values: Tensor, first: int, key: int) -> tuple[Tensor, bool]:
    """Return packed codes of powers of two, and whether all are finite; see `reference/powers_of_two.py`."""
    made: tuple[Tensor, bool] = fastest("short_floats", values.device).power_codes(values, first, key)
    return made


def put_powers(packed: Tensor, out: Tensor) -> None:
    """Write the powers of two that packed codes stand for to `out`."""
    fastest("short_floats", out.device).put_powers(packed, out)


def add_powers(packed: Tensor, total: Tensor) -> None:
    """Add the powers of two that packed codes stand for to `total`, of the values' type."""
    fastest("short_floats", total.device).add_powers(packed, total)


def powers_finite(packed: Tensor, count: int, dtype: torch.dtype) -> bool:
    """Return whether no packed code stands for inf or NaN."""
    made: bool = fastest("short_floats", packed.device).powers_finite(packed, count, dtype)
    return made


def take_kept(values: Tensor, share: float, first: int, key: int, threshold: int) -> Tensor:
    """Return the values of the selected elements, divided by `share`; see `reference/selected_values.py`, as below."""
    made: Tensor = fastest("kept", values.device).take_kept(values, share, first, key, threshold)
    return made


def put_kept(kept: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """Write such values at the selected elements of `out`, and 0 elsewhere."""
    fastest("kept", out.device).put_kept(kept, first, key, threshold, out, drawn)


def add_kept(kept: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """Add such values at the selected elements of `total`."""
    fastest("kept", total.device).add_kept(kept, first, key, threshold, total, drawn)
