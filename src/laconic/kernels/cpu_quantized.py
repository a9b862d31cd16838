"""`plain_quantized` in machine code, one thread: bit for bit the same, the same operations in the same order."""

from typing import Any

import numpy as np
import torch
from numba import float64, uint32
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels import plain_quantized
from laconic.kernels.compiled import kernel
from laconic.kernels.plain import key_halves

Array = NDArray[Any]


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, first: int, key: int
) -> Tensor:
    """See plain_quantized."""
    codes = torch.empty(len(values), dtype=torch.uint8)
    low, high = key_halves(key)
    _quantize(
        _floats(values), _doubles(lows), _doubles(highs), _edges(lengths), float((1 << bits) - 1), first,
        np.uint32(low), np.uint32(high), codes.numpy(),
    )  # fmt: skip
    return codes


def dequantize(codes: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """See plain_quantized."""
    if lows.dtype == torch.bfloat16:  # which numpy has not
        return plain_quantized.dequantize(codes, lows, highs, lengths, bits)
    dense = torch.empty(len(codes), dtype=lows.dtype)
    _dequantize(
        codes.contiguous().numpy(), _doubles(lows), _doubles(highs), _edges(lengths), float((1 << bits) - 1),
        dense.numpy(),
    )  # fmt: skip
    return dense


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, first: int, key: int
) -> Tensor:
    """See plain_quantized."""
    levels = torch.empty(len(values), dtype=torch.int16)
    low, high = key_halves(key)
    _quantize_levels(
        _floats(values), _doubles(scales), _edges(lengths), float(steps), first, np.uint32(low), np.uint32(high),
        levels.numpy(),
    )  # fmt: skip
    return levels


def levels_dense(levels: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """See plain_quantized."""
    if scales.dtype == torch.bfloat16:  # which numpy has not
        return plain_quantized.levels_dense(levels, scales, lengths, steps)
    dense = torch.empty(len(levels), dtype=scales.dtype)
    _levels_dense(levels.contiguous().numpy(), _doubles(scales), _edges(lengths), float(steps), dense.numpy())
    return dense


def _floats(values: Tensor) -> Array:
    return values.detach().contiguous().numpy()


def _doubles(of_blocks: Tensor) -> Array:
    return of_blocks.detach().double().contiguous().numpy()


def _edges(lengths: tuple[int, ...]) -> Array:
    """Where each block begins, and where the last one ends: (blocks + 1,) int64."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(lengths, np.int64))])


@kernel
def _uniform(coordinate: Any, low: Any, high: Any) -> Any:  # noqa: ANN401 - numba's own scalars
    """plain.hash32 of one coordinate, times 2**-32."""
    x = uint32(coordinate ^ low)
    x = uint32(uint32(x ^ uint32(x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(x ^ uint32(x >> uint32(15)))
    x = uint32(uint32(x + high) * uint32(0x846CA68B))
    x = uint32(x ^ uint32(x >> uint32(16)))
    return float64(x) * 2.0**-32


@kernel
def _quantize(
    values: Array, lows: Array, highs: Array, edges: Array, most: float, first: int, low_key: Any, high_key: Any,  # noqa: ANN401
    codes: Array,
) -> None:  # fmt: skip
    for block in range(lows.size):
        start = edges[block]
        part = values[start : edges[block + 1]]
        out = codes[start : edges[block + 1]]
        half = 1.0 if np.isfinite(highs[block] - lows[block]) else 0.5
        low = half * lows[block]
        span = half * highs[block] - low
        for i in range(part.size):
            place = (half * float64(part[i]) - low) / span * most
            place = place if place > 0.0 else 0.0  # NaN too
            place = place if place < most else most
            below = np.floor(place)
            up = _uniform(uint32(first + start + i), low_key, high_key) < place - below
            out[i] = np.uint8(np.int32(below) + np.int32(up))


@kernel
def _dequantize(codes: Array, lows: Array, highs: Array, edges: Array, most: float, dense: Array) -> None:
    for block in range(lows.size):
        part = codes[edges[block] : edges[block + 1]]
        out = dense[edges[block] : edges[block + 1]]
        low, high = lows[block], highs[block]
        for i in range(part.size):
            weight = float64(part[i]) / most
            knob = low * (1.0 - weight) + high * weight
            knob = knob if knob > low else low
            out[i] = (knob if knob < high else high) + 0.0


@kernel
def _quantize_levels(
    values: Array, scales: Array, edges: Array, steps: float, first: int, low_key: Any, high_key: Any, levels: Array  # noqa: ANN401
) -> None:  # fmt: skip
    for block in range(scales.size):
        start = edges[block]
        part = values[start : edges[block + 1]]
        out = levels[start : edges[block + 1]]
        scale = scales[block]
        for i in range(part.size):
            place = abs(float64(part[i])) / scale * steps
            place = place if place > 0.0 else 0.0  # NaN too
            place = place if place < steps else steps
            below = np.floor(place)
            up = _uniform(uint32(first + start + i), low_key, high_key) < place - below
            level = np.int32(below) + np.int32(up)
            out[i] = np.int16(-level if part[i] < 0 else level)


@kernel
def _levels_dense(levels: Array, scales: Array, edges: Array, steps: float, dense: Array) -> None:
    for block in range(scales.size):
        part = levels[edges[block] : edges[block + 1]]
        out = dense[edges[block] : edges[block + 1]]
        scale = scales[block]
        for i in range(part.size):
            out[i] = scale * (float64(part[i]) / steps)
