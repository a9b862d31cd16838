"""Arithmetic on flat vectors. `plain*` is the truth: ordinary torch, any device. `cpu*` is the same in machine code.

The functions here take the compiled one for a tensor on the CPU where numba can be imported, else the plain one.
"""

import torch
from torch import Tensor

from laconic.kernels import compiled, plain_fractional, plain_positions, plain_quantized, plain_symbols, plain_top_k
from laconic.kernels.plain_fractional import level_dtype as level_dtype
from laconic.kernels.plain_positions import Bytes, Codes, Numbers, Words


def _compiled_takes(vector: Tensor) -> bool:
    return vector.device.type == "cpu" and compiled.available()


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
    if _compiled_takes(vector):
        from laconic.kernels import cpu_top_k  # not before it is needed: numba takes a second

        return cpu_top_k.top_k(vector, k)
    return plain_top_k.top_k(vector, k)


def put_numbers(numbers: Numbers, width: int) -> Bytes:
    """Numbers of one width into a bit stream; see plain_positions, as for the five below."""
    if compiled.available():
        from laconic.kernels import cpu_positions

        return cpu_positions.put_numbers(numbers, width)
    return plain_positions.put_numbers(numbers, width)


def take_numbers(data: Bytes, k: int, width: int) -> Numbers:
    """Numbers of one width out of a bit stream."""
    if compiled.available():
        from laconic.kernels import cpu_positions

        return cpu_positions.take_numbers(data, k, width)
    return plain_positions.take_numbers(data, k, width)


def put_runs(positions: Numbers, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Bytes, int]:
    """Positions into a bit stream of runs and numbers, and the bits used."""
    if compiled.available():
        from laconic.kernels import cpu_positions

        return cpu_positions.put_runs(positions, width, step, from_last, n_bits)
    return plain_positions.put_runs(positions, width, step, from_last, n_bits)


def take_runs(
    data: Bytes, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Numbers, int]:
    """Positions out of a bit stream of runs and numbers, and the bits used or -1."""
    if compiled.available():
        from laconic.kernels import cpu_positions

        return cpu_positions.take_runs(data, n_bits, k, width, step, count, from_last)
    return plain_positions.take_runs(data, n_bits, k, width, step, count, from_last)


def push_gaps(positions: Numbers, starts: Numbers) -> tuple[Words, int]:
    """Positions onto a stack of an asymmetric numeral system."""
    if compiled.available():
        from laconic.kernels import cpu_positions

        return cpu_positions.push_gaps(positions, starts)
    return plain_positions.push_gaps(positions, starts)


def pop_gaps(words: Words, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """Positions off such a stack, and whether it held them and nothing else."""
    if compiled.available():
        from laconic.kernels import cpu_positions

        return cpu_positions.pop_gaps(words, top, k, starts, count)
    return plain_positions.pop_gaps(words, top, k, starts, count)


def push_symbols(symbols: Codes, starts: Numbers) -> tuple[Words, int]:
    """Symbols onto such a stack; see plain_symbols, as for the next."""
    if compiled.available():
        from laconic.kernels import cpu_symbols

        return cpu_symbols.push_symbols(symbols, starts)
    return plain_symbols.push_symbols(symbols, starts)


def pop_symbols(words: Words, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """Symbols off such a stack, and whether it held them and nothing else."""
    if compiled.available():
        from laconic.kernels import cpu_symbols

        return cpu_symbols.pop_symbols(words, top, k, starts)
    return plain_symbols.pop_symbols(words, top, k, starts)


def fractional_levels(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Levels of equal ratio for the magnitudes of `values`, 2**(bits-1) of them, and each level's mean magnitude.

    values: (K,) float32 or float64, K >= 1; bits: 1 .. 16. Returns levels (K,), uint8 up to 9 bits and int16 above,
    and means (2**(bits-1),) of values' type. The compiled and the plain version give the same bits.
    """
    assert 1 <= bits <= 16, bits
    assert values.numel() >= 1
    if _compiled_takes(values):
        from laconic.kernels import cpu_fractional

        return cpu_fractional.fractional_levels(values, bits)
    return plain_fractional.fractional_levels(values, bits)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """(K,) int32 in 0 .. 2**bits - 1 -> (ceil(bits K / 8),) uint8: a bit string, `bits` bits a code, lowest first.

    Unused bits of the last byte are 0.
    """
    if _compiled_takes(codes):
        from laconic.kernels import cpu_fractional

        return cpu_fractional.pack_codes(codes, bits)
    return plain_fractional.pack_codes(codes, bits)


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """The inverse of `pack_codes`: (ceil(bits k / 8),) uint8 -> (k,) int32."""
    if _compiled_takes(packed):
        from laconic.kernels import cpu_fractional

        return cpu_fractional.unpack_codes(packed, k, bits)
    return plain_fractional.unpack_codes(packed, k, bits)


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, first: int, key: int
) -> Tensor:
    """Codes of values between the ends of their blocks, drawn at random; see plain_quantized, as for the three below.

    The compiled and the plain version give the same bits.
    """
    if _compiled_takes(values):
        from laconic.kernels import cpu_quantized

        return cpu_quantized.quantize(values, lows, highs, lengths, bits, first, key)
    return plain_quantized.quantize(values, lows, highs, lengths, bits, first, key)


def dequantize(codes: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """The knobs that codes stand for."""
    if _compiled_takes(codes) and lows.dtype != torch.bfloat16:
        from laconic.kernels import cpu_quantized

        return cpu_quantized.dequantize(codes, lows, highs, lengths, bits)
    return plain_quantized.dequantize(codes, lows, highs, lengths, bits)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, first: int, key: int
) -> Tensor:
    """Signed levels of values, drawn at random."""
    if _compiled_takes(values):
        from laconic.kernels import cpu_quantized

        return cpu_quantized.quantize_levels(values, scales, lengths, steps, first, key)
    return plain_quantized.quantize_levels(values, scales, lengths, steps, first, key)


def levels_dense(levels: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """The parts of a scale that levels stand for."""
    if _compiled_takes(levels) and scales.dtype != torch.bfloat16:
        from laconic.kernels import cpu_quantized

        return cpu_quantized.levels_dense(levels, scales, lengths, steps)
    return plain_quantized.levels_dense(levels, scales, lengths, steps)
