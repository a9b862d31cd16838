"""The face of the kernels: arithmetic on flat vectors, run by the fastest backend for the tensor's device.

`reference` defines each function, in torch, for any device; its docstrings are the full documentation. `cpu` has the
same names and signatures compiled by numba, `gpu` in Triton. All give the same bits, except where a docstring in
`reference` states a tolerance. `dispatch` chooses.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.dispatch import CPU, fastest


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
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, offset: int, key: int
) -> Tensor:
    """Return packed codes of values, rounded stochastically; see `reference/stochastic_rounding.py`, also below."""
    made: Tensor = fastest("stochastic_rounding", values.device).quantize(
        values, lows, highs, lengths, bits, offset, key
    )
    return made


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """Return the grid points that packed codes stand for."""
    made: Tensor = fastest("stochastic_rounding", packed.device).dequantize(packed, lows, highs, lengths, bits)
    return made


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, total: Tensor
) -> None:
    """Add the grid points that packed codes stand for to `total`."""
    fastest("stochastic_rounding", packed.device).add_dequantized(packed, lows, highs, lengths, bits, total)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, offset: int, key: int
) -> Tensor:
    """Return packed signed levels of values, rounded stochastically."""
    made: Tensor = fastest("stochastic_rounding", values.device).quantize_levels(
        values, scales, lengths, steps, offset, key
    )
    return made


def levels_dense(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """Return the values that packed levels stand for."""
    made: Tensor = fastest("stochastic_rounding", packed.device).levels_dense(packed, scales, lengths, steps)
    return made


def add_levels(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, total: Tensor) -> None:
    """Add the values that packed levels stand for to `total`."""
    fastest("stochastic_rounding", packed.device).add_levels(packed, scales, lengths, steps, total)


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """Return whether packed levels are within their range, and no zero has a minus sign."""
    made: bool = fastest("stochastic_rounding", packed.device).levels_allowed(packed, count, steps)
    return made


def ranges(values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the minimum and the maximum of each block."""
    made: tuple[Tensor, Tensor] = fastest("stochastic_rounding", values.device).ranges(values, lengths)
    return made


def absolute_maxima(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the absolute maximum of each block."""
    made: Tensor = fastest("stochastic_rounding", values.device).absolute_maxima(values, lengths)
    return made


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the L2 norm of each block."""
    made: Tensor = fastest("stochastic_rounding", values.device).norms(values, lengths)
    return made


def count_selected(offset: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> int:
    """Return how many coordinates a keyed mask selects; see `reference/signs.py`, as for all of signs below."""
    made: int = fastest("signs", device).count_selected(offset, count, key, threshold, device)
    return made


def selected_bits(offset: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> tuple[Tensor, int]:
    """Return which coordinates the mask selects, as bits, and how many."""
    made: tuple[Tensor, int] = fastest("signs", device).selected_bits(offset, count, key, threshold, device)
    return made


def count_ones(packed: Tensor, bounds: Sequence[int]) -> list[int]:
    """Return how many bits of a packed stream are set between neighboring bounds; see `reference/popcount.py`."""
    made: list[int] = fastest("popcount").count_ones(packed, bounds)
    return made


def pack_signs(values: Tensor, offset: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """Return the packed signs of the selected elements, and how many are selected."""
    made: tuple[Tensor, int] = fastest("signs", values.device).pack_signs(values, offset, key, threshold)
    return made


def put_signs(
    packed: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """Write -1 or +1 at the selected elements of `out`, and 0 elsewhere."""
    fastest("signs", out.device).put_signs(packed, offset, key, threshold, out, sampled)


def add_signs(
    packed: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None
) -> None:
    """Add -1 or +1 at the selected elements of `total`, which may be int8."""
    fastest("signs", total.device).add_signs(packed, offset, key, threshold, total, sampled)


def slice_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """Return the bits low .. high-1 of a packed stream as a stream of their own."""
    made: Tensor = fastest("signs", packed.device).slice_bits(packed, low, high)
    return made


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """Return the majority of several voters' packed signs; +1 for a tie."""
    made: Tensor = fastest("signs", packed[0].device).majority(packed, count)
    return made


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """Average momentum and gradient over `gradient`, and return its packed signs."""
    made: Tensor = fastest("signs", gradient.device).momentum_signs(gradient, momentum, mu=mu)
    return made


def error_feedback_step(
    tensors: Sequence[Tensor], momentum: Tensor, residual: Tensor, new_momentum: Tensor, new_residual: Tensor,
    *, mu: float, decay: float, c: float, offset: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:  # fmt: skip
    """Take a worker's step with momentum, error feedback and signs on a keyed mask, in one pass."""
    made: tuple[Tensor, int, Tensor | None, bool] = fastest("signs", new_residual.device).error_feedback_step(
        tensors, momentum, residual, new_momentum, new_residual,
        mu=mu, decay=decay, c=c, offset=offset, key=key, threshold=threshold,
    )  # fmt: skip
    return made


def error_feedback_total(
    total: Tensor, residual: Tensor, new_residual: Tensor,
    *, divisor: int, scale: float, decay: float, c: float, offset: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None]:  # fmt: skip
    """Take the server's step of the same methods."""
    made: tuple[Tensor, int, Tensor | None] = fastest("signs", total.device).error_feedback_total(
        total,
        residual,
        new_residual,
        divisor=divisor,
        scale=scale,
        decay=decay,
        c=c,
        offset=offset,
        key=key,
        threshold=threshold,
    )
    return made


def power_codes(values: Tensor, offset: int, key: int) -> tuple[Tensor, bool]:
    """Return packed codes of powers of two, and whether all are finite; see `reference/powers_of_two.py`."""
    made: tuple[Tensor, bool] = fastest("powers_of_two", values.device).power_codes(values, offset, key)
    return made


def put_powers(packed: Tensor, out: Tensor) -> None:
    """Write the powers of two that packed codes stand for to `out`."""
    fastest("powers_of_two", out.device).put_powers(packed, out)


def add_powers(packed: Tensor, total: Tensor) -> None:
    """Add the powers of two that packed codes stand for to `total`, of the values' type."""
    fastest("powers_of_two", total.device).add_powers(packed, total)


def powers_finite(packed: Tensor, count: int, dtype: torch.dtype) -> bool:
    """Return whether no packed code stands for inf or NaN."""
    made: bool = fastest("powers_of_two", packed.device).powers_finite(packed, count, dtype)
    return made


def take_selected(values: Tensor, share: float, offset: int, key: int, threshold: int) -> Tensor:
    """Return the values of the selected elements, divided by `share`; see `reference/selected_values.py`, as below."""
    made: Tensor = fastest("selected_values", values.device).take_selected(values, share, offset, key, threshold)
    return made


def put_selected(
    selected: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """Write such values at the selected elements of `out`, and 0 elsewhere."""
    fastest("selected_values", out.device).put_selected(selected, offset, key, threshold, out, sampled)


def add_selected(
    selected: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None
) -> None:
    """Add such values at the selected elements of `total`."""
    fastest("selected_values", total.device).add_selected(selected, offset, key, threshold, total, sampled)
