"""Codes of a part of a vector, written when they are needed: the reference, in torch."""

from torch import Tensor

from laconic.kernels.reference.stochastic_rounding import put_dequantized, quantize


def put_codes(
    values: Tensor, lows: Tensor, highs: Tensor, bits: int, offset: int, key: int, packed: Tensor, *, replaces: bool
) -> None:
    """Write what `quantize` returns for one block to memory that is there.

    Args:
        values: (d,) float32 or float64.
        lows: (1,), the low end.
        highs: (1,), the high end.
        bits: Bits of a code, 1 .. 8.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        packed: (ceil(bits d / 8),) uint8, overwritten.
        replaces: Whether to overwrite `values` by the grid points that the codes stand for.
    """
    lengths = [values.numel()]
    packed.copy_(quantize(values, lows, highs, lengths, bits, offset, key))
    if replaces:
        put_dequantized(packed, lows, highs, lengths, bits, values)
