"""Bit streams of positions on a GPU, the same bits. Reference: `reference/position_streams.py`.

Where a number begins follows from how many come before it and, for runs, from how many zeros do. So all are written at
once, by atomic ors into words that neighbors may share. Runs are read by the reference: its links work on a GPU.
"""

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.gpu.compile import blocks_of, kernel, launch
from laconic.kernels.reference.position_streams import MAX_COUNT
from laconic.kernels.reference.position_streams import ascending as ascending
from laconic.kernels.reference.position_streams import take_runs as take_runs

_BLOCK = 1024


def put_numbers(numbers: Tensor, width: int) -> tuple[Tensor, bool]:
    """See `reference.position_streams.put_numbers`."""
    k = len(numbers)
    words = _words(k * width, numbers)
    launch(_put_numbers, blocks_of(k, _BLOCK), numbers.contiguous(), k, width, words, BLOCK=_BLOCK)
    return _bytes(words, k * width), ascending(numbers, 1 << width)


def take_numbers(data: Tensor, k: int, width: int) -> tuple[Tensor, bool]:
    """See `reference.position_streams.take_numbers`."""
    numbers = torch.empty(k, dtype=torch.int64, device=data.device)
    launch(_take_numbers, blocks_of(k, _BLOCK), data.contiguous(), len(data), k, width, numbers, BLOCK=_BLOCK)
    return numbers, ascending(numbers, 1 << width)


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """See `reference.position_streams.put_runs`. The host waits for the number of bits used."""
    k = len(positions)
    positions = positions.contiguous()
    words = _words(n_bits, positions)
    if not ascending(positions, MAX_COUNT):
        return _bytes(words, n_bits), -1
    zeros = torch.empty_like(positions)
    launch(_count_zeros, blocks_of(k, _BLOCK), positions, k, step, zeros, FROM_LAST=from_last, BLOCK=_BLOCK)
    if from_last:
        zeros = zeros.cumsum(0)
    launch(
        _put_runs, blocks_of(k, _BLOCK), positions, zeros, k, width, step, words, FROM_LAST=from_last, BLOCK=_BLOCK
    )  # fmt: skip
    return _bytes(words, n_bits), int(zeros[-1]) + k * (1 + width) if k else 0


def _words(n_bits: int, like: Tensor) -> Tensor:
    """Return words of 32 bits, all 0, for a stream."""
    return torch.zeros(blocks_of(n_bits, 32), dtype=torch.int32, device=like.device)


def _bytes(words: Tensor, n_bits: int) -> Tensor:
    """Return the first `n_bits` of the stream, in full bytes."""
    return words.view(torch.uint8)[: blocks_of(n_bits, 8)]


@kernel
def _swapped(word: tl.tensor) -> tl.tensor:
    """Return the low 32 bits of numbers (n,) int64, bytes reversed, as int32: a stream's first byte is its highest."""
    word = word.to(tl.uint32)
    ends = (word << 24) | (word >> 24)
    return (ends | ((word & 0xFF00) << 8) | ((word >> 8) & 0xFF00)).to(tl.int32, bitcast=True)


@kernel
def _write(words: tl.tensor, number: tl.tensor, start: tl.tensor, n_bits: tl.tensor, inside: tl.tensor) -> None:
    """Write numbers (n,) int64 of `n_bits` bits, 1 .. 33, from the bits `start` (n,) int64 on: to at most two words."""
    placed = number << (64 - n_bits - (start & 31))
    word = words + (start >> 5)
    second = _swapped(placed)
    tl.atomic_or(word, _swapped(placed >> 32), mask=inside, sem="relaxed")
    tl.atomic_or(word + 1, second, mask=inside & (second != 0), sem="relaxed")


@kernel
def _put_numbers(
    numbers: tl.tensor, k: tl.int64, width: tl.int64, words: tl.tensor, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _write(words, tl.load(numbers + at, mask=at < k, other=0), at * width, width, at < k)


@kernel
def _take_numbers(
    data: tl.tensor, n_bytes: tl.int64, k: tl.int64, width: tl.int64, numbers: tl.tensor, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    start = at * width
    window = at * 0  # the 40 bits from the number's first byte on
    for byte in tl.static_range(5):
        place = (start >> 3) + byte
        here = tl.load(data + place, mask=(at < k) & (place < n_bytes), other=0)
        window |= here.to(tl.int64) << (32 - 8 * byte)
    number = (window >> (40 - width - (start & 7))) & ((1 << width) - 1)
    tl.store(numbers + at, number, mask=at < k)


@kernel
def _ahead(positions: tl.tensor, at: tl.tensor, k: tl.tensor, FROM_LAST: tl.constexpr) -> tl.tensor:
    """Return how many coordinates are before a position, or between it and the last one."""
    ahead = tl.load(positions + at, mask=at < k, other=0)
    if FROM_LAST:
        ahead -= tl.load(positions + at - 1, mask=(at > 0) & (at < k), other=-1) + 1
    return ahead


@kernel
def _count_zeros(
    positions: tl.tensor, k: tl.int64, step: tl.int64, zeros: tl.tensor, FROM_LAST: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    """Write the zeros of each position's run, or of all runs up to it unless FROM_LAST."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(zeros + at, _ahead(positions, at, k, FROM_LAST) // step, mask=at < k)


@kernel
def _put_runs(
    positions: tl.tensor, zeros: tl.tensor, k: tl.int64, width: tl.int64, step: tl.int64, words: tl.tensor,
    FROM_LAST: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = _ahead(positions, at, k, FROM_LAST) % step
    start = tl.load(zeros + at, mask=at < k, other=0) + at * (1 + width)
    one = tl.full([1], 1, tl.int64) << width
    _write(words, number | one, start, 1 + width, at < k)
