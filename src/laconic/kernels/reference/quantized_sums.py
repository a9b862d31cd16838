"""Sums of quantized vectors: the reference, in torch."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from laconic.kernels.reference.stochastic_rounding import add_dequantized, add_levels, ranges


def sum_dequantized(
    packed: Sequence[Tensor], lows: Sequence[Tensor], highs: Sequence[Tensor], lengths: Sequence[int], bits: int,
    out: Tensor, *, divisor: int = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Write the sum from 0 of several `dequantize`, in their order, divided, and return its minimum and its maximum.

    Args:
        packed: The codes of each vector.
        lows: The low end of each block, (blocks,) for each vector.
        highs: The high ends.
        lengths: Elements of each block, the same for all vectors.
        bits: Bits of a code, 1 .. 8.
        out: (d,) float32 or float64, overwritten.
        divisor: The divisor.

    Returns:
        (1,) of the sum's type each: its `ranges` as one block.
    """
    by_adding(add_dequantized, packed, zip(lows, highs, strict=True), (lengths, bits), out, divisor)
    return ranges(out, [out.numel()])


def put_moved(
    base: Tensor, packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, out: Tensor
) -> None:
    """Write a vector plus a `dequantize`.

    Args:
        base: (d,) of the type of `out`, the vector.
        packed: The codes.
        lows: (blocks,), the low end of each block.
        highs: (blocks,), the high ends.
        lengths: Elements of each block.
        bits: Bits of a code, 1 .. 8.
        out: (d,) float32 or float64, overwritten; no memory of `base`.
    """
    add_dequantized(packed, lows, highs, lengths, bits, out.copy_(base))


def sum_levels(
    packed: Sequence[Tensor], scales: Sequence[Tensor], lengths: Sequence[int], steps: int, out: Tensor,
    *, divisor: int = 1,
) -> None:  # fmt: skip
    """Write the sum from 0 of several `levels_dense`, in their order, divided. Arguments as for `sum_dequantized`."""
    by_adding(add_levels, packed, zip(scales, strict=True), (lengths, steps), out, divisor)


def by_adding(
    add: Callable[..., None], packed: Sequence[Tensor], ends: Iterable[tuple[Tensor, ...]],
    settings: tuple[Sequence[int], int], out: Tensor, divisor: int,
) -> None:  # fmt: skip
    """Write the same by a backend's function that adds one vector: codes, ends, lengths and a number, the sum."""
    out.zero_()
    for codes, of_blocks in zip(packed, ends, strict=True):
        add(codes, *of_blocks, *settings, out)
    if divisor != 1:
        out.div_(divisor)
