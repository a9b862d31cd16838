"""Values rounded to packed codes, and what is measured of their blocks: a part of the kernels' face."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels import checks
from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.checks import ALL_FLOATS, FLOATS
from laconic.kernels.dispatch import fastest
from laconic.kernels.reference.stochastic_rounding import level_bits

_MAX_STEPS = 255  # a level and its 23 bits of fraction fill int32


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, offset: int, key: int
) -> Tensor:
    """Return packed codes of values, rounded stochastically; see `reference/stochastic_rounding.py`, also below."""
    checks.number("quantize", "bits", bits, 1, 8)
    blocks = _check_blocks("quantize", values, lengths, lows, highs)
    checks.coordinates("quantize", offset, values.numel(), key)
    made: Tensor = fastest("stochastic_rounding", values.device).quantize(
        values, lows, highs, blocks, bits, offset, key
    )
    return made


def put_codes(
    values: Tensor, lows: Tensor, highs: Tensor, bits: int, offset: int, key: int, packed: Tensor, *, replaces: bool
) -> None:
    """Write what `quantize` returns for one block to `packed`, and what codes stand for to `values` if asked to.

    See `reference/late_codes.py`.
    """
    checks.number("put_codes", "bits", bits, 1, 8)
    checks.output("put_codes", "values", values, FLOATS)
    checks.ends(
        "put_codes", (lows, highs), checks.blocks("put_codes", [values.numel()]), (values.dtype,), values.device
    )
    checks.coordinates("put_codes", offset, values.numel(), key)
    checks.output("put_codes", "packed", packed, (torch.uint8,), (bits * values.numel() + 7) // 8, values.device)
    fastest("late_codes", values.device).put_codes(values, lows, highs, bits, offset, key, packed, replaces=replaces)


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int) -> Tensor:
    """Return the grid points that packed codes stand for."""
    blocks = _check_codes("dequantize", packed, bits, lengths, lows, highs)
    made: Tensor = fastest("stochastic_rounding", packed.device).dequantize(packed, lows, highs, blocks, bits)
    return made


def put_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, out: Tensor
) -> None:
    """Write the grid points that packed codes stand for to `out`."""
    blocks = _check_codes("put_dequantized", packed, bits, lengths, lows, highs)
    checks.output("put_dequantized", "out", out, ALL_FLOATS, blocks.total, packed.device, strided=True)
    fastest("stochastic_rounding", packed.device).put_dequantized(packed, lows, highs, blocks, bits, out)


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, total: Tensor,
    *, subtract: bool = False,
) -> None:  # fmt: skip
    """Add the grid points that packed codes stand for to `total`, or subtract them."""
    blocks = _check_codes("add_dequantized", packed, bits, lengths, lows, highs)
    checks.output("add_dequantized", "total", total, ALL_FLOATS, blocks.total, packed.device, strided=True)
    fastest("stochastic_rounding", packed.device).add_dequantized(
        packed, lows, highs, blocks, bits, total, subtract=subtract
    )


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, offset: int, key: int
) -> Tensor:
    """Return packed signed levels of values, rounded stochastically."""
    checks.number("quantize_levels", "steps", steps, 1, _MAX_STEPS)
    blocks = _check_blocks("quantize_levels", values, lengths, scales)
    checks.coordinates("quantize_levels", offset, values.numel(), key)
    made: Tensor = fastest("stochastic_rounding", values.device).quantize_levels(
        values, scales, blocks, steps, offset, key
    )
    return made


def levels_dense(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int) -> Tensor:
    """Return the values that packed levels stand for."""
    checks.number("levels_dense", "steps", steps, 1, _MAX_STEPS)
    blocks = _check_codes("levels_dense", packed, level_bits(steps), lengths, scales)
    made: Tensor = fastest("stochastic_rounding", packed.device).levels_dense(packed, scales, blocks, steps)
    return made


def put_levels(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, out: Tensor) -> None:
    """Write the values that packed levels stand for to `out`."""
    checks.number("put_levels", "steps", steps, 1, _MAX_STEPS)
    blocks = _check_codes("put_levels", packed, level_bits(steps), lengths, scales)
    checks.output("put_levels", "out", out, ALL_FLOATS, blocks.total, packed.device, strided=True)
    fastest("stochastic_rounding", packed.device).put_levels(packed, scales, blocks, steps, out)


def add_levels(
    packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, total: Tensor, *, subtract: bool = False
) -> None:
    """Add the values that packed levels stand for to `total`, or subtract them."""
    checks.number("add_levels", "steps", steps, 1, _MAX_STEPS)
    blocks = _check_codes("add_levels", packed, level_bits(steps), lengths, scales)
    checks.output("add_levels", "total", total, ALL_FLOATS, blocks.total, packed.device, strided=True)
    fastest("stochastic_rounding", packed.device).add_levels(packed, scales, blocks, steps, total, subtract=subtract)


def sum_dequantized(
    packed: Sequence[Tensor], lows: Sequence[Tensor], highs: Sequence[Tensor], lengths: Sequence[int], bits: int,
    out: Tensor, *, divisor: int = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Write the sum of several `dequantize`, divided, in one pass, and return its minimum and its maximum.

    See `reference/quantized_sums.py`, also below.
    """
    blocks = _check_sum("sum_dequantized", packed, bits, lengths, (lows, highs), out, divisor)
    made: tuple[Tensor, Tensor] = fastest("quantized_sums", out.device).sum_dequantized(
        packed, lows, highs, blocks, bits, out, divisor=divisor
    )
    return made


def put_moved(
    base: Tensor, packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, out: Tensor
) -> None:
    """Write a vector plus the grid points that packed codes stand for, in one pass."""
    blocks = _check_codes("put_moved", packed, bits, lengths, lows, highs)
    checks.output("put_moved", "out", out, FLOATS, blocks.total, packed.device)
    checks.vector("put_moved", "base", base, (out.dtype,), blocks.total, packed.device)
    fastest("quantized_sums", out.device).put_moved(base, packed, lows, highs, blocks, bits, out)


def sum_levels(
    packed: Sequence[Tensor], scales: Sequence[Tensor], lengths: Sequence[int], steps: int, out: Tensor,
    *, divisor: int = 1,
) -> None:  # fmt: skip
    """Write the sum of several `levels_dense`, divided, in one pass."""
    checks.number("sum_levels", "steps", steps, 1, _MAX_STEPS)
    blocks = _check_sum("sum_levels", packed, level_bits(steps), lengths, (scales,), out, divisor)
    fastest("quantized_sums", out.device).sum_levels(packed, scales, blocks, steps, out, divisor=divisor)


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """Return whether packed levels are within their range, and no zero has a minus sign."""
    checks.number("levels_allowed", "steps", steps, 1, _MAX_STEPS)
    checks.number("levels_allowed", "count", count, 0, checks.MAX_COUNT)
    checks.packed("levels_allowed", "packed", packed, level_bits(steps) * count)
    made: bool = fastest("stochastic_rounding", packed.device).levels_allowed(packed, count, steps)
    return made


def ranges(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the minimum and the maximum of each block."""
    blocks = _check_blocks("ranges", values, lengths)
    made: tuple[Tensor, Tensor] = fastest("stochastic_rounding", values.device).ranges(values, blocks)
    return made


def ranges_of_tensors(tensors: Sequence[Tensor], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the `ranges` of the vector that tensors make; see `reference/gathered_codes.py`, also below."""
    blocks = _check_tensors("ranges_of_tensors", tensors, lengths)
    made: tuple[Tensor, Tensor] = fastest("gathered_codes", tensors[0].device).ranges_of_tensors(tensors, blocks)
    return made


def quantize_tensors(
    tensors: Sequence[Tensor], lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, offset: int, key: int
) -> Tensor:
    """Return what `quantize` makes of the vector that tensors make, without writing it."""
    checks.number("quantize_tensors", "bits", bits, 1, 8)
    blocks = _check_tensors("quantize_tensors", tensors, lengths, lows, highs)
    checks.coordinates("quantize_tensors", offset, blocks.total, key)
    made: Tensor = fastest("gathered_codes", tensors[0].device).quantize_tensors(
        tensors, lows, highs, blocks, bits, offset, key
    )
    return made


def absolute_maxima(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the absolute maximum of each block."""
    blocks = _check_blocks("absolute_maxima", values, lengths)
    made: Tensor = fastest("stochastic_rounding", values.device).absolute_maxima(values, blocks)
    return made


def norms(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the L2 norm of each block."""
    blocks = _check_blocks("norms", values, lengths)
    made: Tensor = fastest("stochastic_rounding", values.device).norms(values, blocks)
    return made


def _check_blocks(call: str, values: Tensor, lengths: Sequence[int], *ends: Tensor) -> BlockLengths:
    blocks = checks.blocks(call, lengths)
    checks.vector(call, "values", values, FLOATS, blocks.total)
    checks.ends(call, ends, blocks, FLOATS, values.device)
    return blocks


def _check_tensors(call: str, tensors: Sequence[Tensor], lengths: Sequence[int], *ends: Tensor) -> BlockLengths:
    blocks = checks.blocks(call, lengths)
    checks.number(call, "number of tensors", len(tensors), 1, checks.MAX_COUNT)
    checks.tensors(call, tensors, blocks.total)
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) > 1 or not dtypes <= set(FLOATS):
        names = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(f"{call}: tensors are {names}; they must be all torch.float32 or all torch.float64")
    checks.ends(call, ends, blocks, (tensors[0].dtype,), tensors[0].device)
    return blocks


def _check_codes(call: str, packed: Tensor, bits: int, lengths: Sequence[int], *ends: Tensor) -> BlockLengths:
    checks.number(call, "bits", bits, 1, 9)
    blocks = checks.blocks(call, lengths)
    checks.packed(call, "packed", packed, bits * blocks.total)
    checks.ends(call, ends, blocks, ALL_FLOATS, packed.device)
    return blocks


def _check_sum(
    call: str, packed: Sequence[Tensor], bits: int, lengths: Sequence[int], ends: tuple[Sequence[Tensor], ...],
    out: Tensor, divisor: int,
) -> BlockLengths:  # fmt: skip
    blocks = checks.blocks(call, lengths)
    checks.number(call, "number of vectors", len(packed), 1, checks.MAX_COUNT)
    for of_blocks in ends:
        checks.number(call, "number of ends of blocks", len(of_blocks), len(packed), len(packed))
    for number, codes in enumerate(packed):
        _check_codes(call, codes, bits, blocks, *(of_blocks[number] for of_blocks in ends))
        checks.packed(call, f"vector {number}", codes, bits * blocks.total, out.device)
    checks.output(call, "out", out, FLOATS, blocks.total)
    checks.number(call, "divisor", divisor, 1, checks.MAX_COUNT)
    return blocks
