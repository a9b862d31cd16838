"""Arithmetic on flat vectors. `plain_*` is the truth: ordinary torch, any device. `cpu_*` is the same in machine code,
`gpu_*` in Triton.

The files of one family hold functions of the same names and signatures. The functions here take the compiled one for
a tensor on the CPU where numba can be imported, Triton's for one on a GPU where that can be, else the plain one.
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
    """The positions of the k largest magnitudes of `vector`, ties by the lower position.

    vector: (d,) float32 or float64. Returns (k,) int64, ascending. Exact. NaN counts as larger than infinity.
    Raises TypeError for other types or shapes, ValueError for k outside 1 .. d.
    """
    if vector.ndim != 1 or vector.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"top_k takes (d,) float32 or float64, not {vector.dtype} of shape {tuple(vector.shape)}")
    d = vector.numel()
    if not 1 <= k <= d:
        raise ValueError(f"top_k: k={k} must be in 1 .. d={d}; take fewer entries, or at least one")
    made: Tensor = fastest("top_k", vector.device).top_k(vector, k)
    return made


def ascending(positions: Tensor, count: int) -> bool:
    """Whether positions ascend, each once, within 0 .. count - 1; see plain_positions, as for the four below."""
    made: bool = fastest("positions", positions.device).ascending(positions, count)
    return made


def put_numbers(numbers: Tensor, width: int) -> Tensor:
    """Numbers of one width into a bit stream."""
    made: Tensor = fastest("positions", numbers.device).put_numbers(numbers, width)
    return made


def take_numbers(data: Tensor, k: int, width: int) -> Tensor:
    """Numbers of one width out of a bit stream."""
    made: Tensor = fastest("positions", data.device).take_numbers(data, k, width)
    return made


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """Positions into a bit stream of runs and numbers, and the bits used."""
    family = fastest("positions", positions.device)
    made: tuple[Tensor, int] = family.put_runs(positions, width, step, from_last, n_bits)
    return made


def take_runs(
    data: Tensor, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Tensor, int]:
    """Positions out of a bit stream of runs and numbers, and the bits used or -1."""
    family = fastest("positions", data.device)
    made: tuple[Tensor, int] = family.take_runs(data, n_bits, k, width, step, count, from_last)
    return made


def push_gaps(positions: Numbers, starts: Numbers) -> tuple[Words, int]:
    """Positions in the host's memory onto a stack of an asymmetric numeral system; see plain_gaps, as for the next."""
    made: tuple[Words, int] = fastest("gaps").push_gaps(positions, starts)
    return made


def pop_gaps(words: Words, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """Positions off such a stack, and whether it held them and nothing else."""
    made: tuple[Numbers, bool] = fastest("gaps").pop_gaps(words, top, k, starts, count)
    return made


def push_symbols(symbols: Codes, starts: Numbers) -> tuple[Words, int]:
    """Symbols onto such a stack; see plain_symbols, as for the next."""
    made: tuple[Words, int] = fastest("symbols").push_symbols(symbols, starts)
    return made


def pop_symbols(words: Words, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """Symbols off such a stack, and whether it held them and nothing else."""
    made: tuple[Codes, bool] = fastest("symbols").pop_symbols(words, top, k, starts)
    return made


def most_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """The places of the k most votes, the lowest in `order` of equal ones; see plain_votes. k: 1 .. n."""
    assert 1 <= k <= votes.numel(), (k, votes.numel())
    made: Tensor = fastest("votes", votes.device).most_voted(votes, order, k)
    return made


def tally(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The positions in any of several lists, none in one twice, and in how many of them; see plain_votes."""
    if not lists:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    made: tuple[Tensor, Tensor] = fastest("votes", lists[0].device).tally(lists)
    return made


def hash_at(positions: Tensor, key: int) -> Tensor:
    """32 random bits for each of the positions (n,) int64: (n,) int32; see plain."""
    made: Tensor = fastest("votes", positions.device).hash_at(positions, key)
    return made


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Packed codes of levels of equal ratio, and the levels' mean magnitudes; see plain_fractional, as for two more.

    values: (K,) float32 or float64, K >= 1; bits: 1 .. 16.
    """
    assert 1 <= bits <= 16, bits
    assert values.numel() >= 1
    made: tuple[Tensor, Tensor] = fastest("fractional", values.device).fractional_codes(values, bits)
    return made


def fractional_dense(packed: Tensor, means: Tensor, count: int, bits: int) -> Tensor:
    """What packed codes stand for."""
    made: Tensor = fastest("fractional", packed.device).fractional_dense(packed, means, count, bits)
    return made


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """The same, added to `total`."""
    fastest("fractional", packed.device).add_fractional(packed, means, count, bits, total)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """(K,) int32 in 0 .. 2**bits - 1 -> (ceil(bits K / 8),) uint8: a bit string, `bits` bits a code, lowest first.

    Unused bits of the last byte are 0.
    """
    made: Tensor = fastest("fractional", codes.device).pack_codes(codes, bits)
    return made


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """The inverse of `pack_codes`: (ceil(bits k / 8),) uint8 -> (k,) int32."""
    made: Tensor = fastest("fractional", packed.device).unpack_codes(packed, k, bits)
    return made


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, first: int, key: int
) -> Tensor:
    """Packed codes of values between the ends of their blocks, drawn at random; see plain_quantized, as for all below.

    The compiled and the plain versions give the same bits, but for `norms`.
    """
    made: Tensor = fastest("quantized", values.device).quantize(values, lows, highs, lengths, bits, first, key)
    return made


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """The knobs that packed codes stand for."""
    made: Tensor = fastest("quantized", packed.device).dequantize(packed, lows, highs, lengths, bits)
    return made


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, total: Tensor
) -> None:
    """The same, added to `total`."""
    fastest("quantized", packed.device).add_dequantized(packed, lows, highs, lengths, bits, total)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, first: int, key: int
) -> Tensor:
    """Packed signed levels of values, drawn at random."""
    made: Tensor = fastest("quantized", values.device).quantize_levels(values, scales, lengths, steps, first, key)
    return made


def levels_dense(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """The parts of a scale that packed levels stand for."""
    made: Tensor = fastest("quantized", packed.device).levels_dense(packed, scales, lengths, steps)
    return made


def add_levels(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, total: Tensor) -> None:
    """The same, added to `total`."""
    fastest("quantized", packed.device).add_levels(packed, scales, lengths, steps, total)


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """Whether packed levels are within their range, and no zero has a minus sign."""
    made: bool = fastest("quantized", packed.device).levels_allowed(packed, count, steps)
    return made


def ranges(values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each block."""
    made: tuple[Tensor, Tensor] = fastest("quantized", values.device).ranges(values, lengths)
    return made


def peaks(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The largest magnitude of each block."""
    made: Tensor = fastest("quantized", values.device).peaks(values, lengths)
    return made


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The L2 norm of each block."""
    made: Tensor = fastest("quantized", values.device).norms(values, lengths)
    return made


def count_kept(first: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> int:
    """How many of the coordinates first .. first+count-1 a keyed coin keeps; see plain_signs, as for the eight below.

    The compiled and the plain version give the same bits.
    """
    made: int = fastest("signs", device).count_kept(first, count, key, threshold, device)
    return made


def kept_bits(first: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> tuple[Tensor, int]:
    """Which of them, as bits, and how many."""
    made: tuple[Tensor, int] = fastest("signs", device).kept_bits(first, count, key, threshold, device)
    return made


def count_ones(packed: Tensor, cuts: Sequence[int]) -> list[int]:
    """How many bits of a packed stream on the CPU are set between each cut and the next one; see plain_counts."""
    made: list[int] = fastest("counts").count_ones(packed, cuts)
    return made


def pack_signs(values: Tensor, first: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """The signs of the kept entries, packed, and how many were kept."""
    made: tuple[Tensor, int] = fastest("signs", values.device).pack_signs(values, first, key, threshold)
    return made


def put_signs(packed: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """-1, +1, or 0 where not kept, into `out`."""
    fastest("signs", out.device).put_signs(packed, first, key, threshold, out, drawn)


def add_signs(packed: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """The same, added to `total`, which may be int8 votes."""
    fastest("signs", total.device).add_signs(packed, first, key, threshold, total, drawn)


def cut_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """The bits low .. high-1 of a packed stream as a stream of their own."""
    made: Tensor = fastest("signs", packed.device).cut_bits(packed, low, high)
    return made


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """The majority of several voters' packed signs, ties +1."""
    made: Tensor = fastest("signs", packed[0].device).majority(packed, count)
    return made


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """The averaged momentum, written over `gradient`, and its packed signs."""
    made: Tensor = fastest("signs", gradient.device).momentum_signs(gradient, momentum, mu=mu)
    return made


def owe_step(
    pieces: Sequence[Tensor], momentum: Tensor, debt: Tensor, new_momentum: Tensor, new_debt: Tensor,
    *, mu: float, decay: float, c: float, first: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:  # fmt: skip
    """Momentum, error feedback, signs on a keyed mask and what is owed afterwards, in one pass: a worker's step."""
    made: tuple[Tensor, int, Tensor | None, bool] = fastest("signs", new_debt.device).owe_step(
        pieces, momentum, debt, new_momentum, new_debt,
        mu=mu, decay=decay, c=c, first=first, key=key, threshold=threshold,
    )  # fmt: skip
    return made


def owe_total(
    total: Tensor, debt: Tensor, new_debt: Tensor,
    *, among: int, scale: float, decay: float, c: float, first: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None]:  # fmt: skip
    """The server's step of the same methods."""
    made: tuple[Tensor, int, Tensor | None] = fastest("signs", total.device).owe_total(
        total, debt, new_debt, among=among, scale=scale, decay=decay, c=c, first=first, key=key, threshold=threshold
    )
    return made


def power_codes(values: Tensor, first: int, key: int) -> tuple[Tensor, bool]:
    """Packed codes of values rounded to powers of two, and whether all are finite; see plain_short_floats, as below."""
    made: tuple[Tensor, bool] = fastest("short_floats", values.device).power_codes(values, first, key)
    return made


def put_powers(packed: Tensor, out: Tensor) -> None:
    """What such codes stand for, into `out`."""
    fastest("short_floats", out.device).put_powers(packed, out)


def add_powers(packed: Tensor, total: Tensor) -> None:
    """The same, added to `total`, of the values' type."""
    fastest("short_floats", total.device).add_powers(packed, total)


def powers_finite(packed: Tensor, count: int, dtype: torch.dtype) -> bool:
    """Whether none of such codes stands for inf or NaN."""
    made: bool = fastest("short_floats", packed.device).powers_finite(packed, count, dtype)
    return made


def take_kept(values: Tensor, share: float, first: int, key: int, threshold: int) -> Tensor:
    """The entries that a keyed coin keeps, divided by `share`; see plain_kept, as for the next two."""
    made: Tensor = fastest("kept", values.device).take_kept(values, share, first, key, threshold)
    return made


def put_kept(kept: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """Such entries where they were, and 0 elsewhere, into `out`."""
    fastest("kept", out.device).put_kept(kept, first, key, threshold, out, drawn)


def add_kept(kept: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """The same, added to `total`."""
    fastest("kept", total.device).add_kept(kept, first, key, threshold, total, drawn)
