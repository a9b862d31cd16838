"""Bit streams of positions: the reference, in torch. `wire/coding/positions.py` says what they are for.

A stream fills bytes from the highest bit down, and a number's highest bit comes first.
"""

import torch
from torch import Tensor

MAX_COUNT = 1 << 32  # coordinates


def ascending(positions: Tensor, count: int) -> bool:
    """Return whether positions (k,) int64 ascend, each once, within 0 .. count - 1."""
    within = (positions[:1] >= 0).all() & (positions[-1:] < count).all()
    return bool(within & (positions[1:] > positions[:-1]).all())


def put_numbers(numbers: Tensor, width: int) -> tuple[Tensor, bool]:
    """Write numbers of one width into a bit stream, one behind the other.

    Args:
        numbers: (k,) int64.
        width: Bits of a number, 1 .. 32.

    Returns:
        (ceil(k width / 8),) uint8, and whether the numbers ascend, each once, within 0 .. 2**width - 1. If not, the
        stream means nothing.
    """
    return _pack(_digits(numbers, width).flatten()), ascending(numbers, 1 << width)


def take_numbers(data: Tensor, k: int, width: int) -> tuple[Tensor, bool]:
    """Read numbers of one width from the beginning of a bit stream.

    Args:
        data: (n,) uint8, k * width bits or more.
        k: Number of numbers.
        width: Bits of a number, 1 .. 32.

    Returns:
        (k,) int64, and whether they ascend, each once.
    """
    numbers = _numbers(_unpack(data)[: k * width].view(k, width))
    return numbers, ascending(numbers, 1 << width)


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """Write positions as runs of zeros and numbers: the stream that `take_runs` reads.

    Args:
        positions: (k,) int64.
        width: Bits of the number behind each run, 0 .. 32.
        step: Coordinates that one zero of a run stands for, at most 2**width.
        from_last: Count a run from behind the last position, otherwise from where the last run ended.
        n_bits: Length of the result in bits, enough for all positions up to the last one.

    Returns:
        (ceil(n_bits / 8),) uint8, zero behind the bits used, and the number of bits used. This is -1, and the stream
        means nothing, where positions do not ascend, each once, from 0 on.
    """
    if not ascending(positions, MAX_COUNT):
        return torch.zeros((n_bits + 7) // 8, dtype=torch.uint8, device=positions.device), -1
    if from_last:
        ahead = torch.diff(positions, prepend=positions.new_full((1,), -1)) - 1
        zeros = (ahead // step).cumsum(0)  # in all runs up to each position
    else:
        ahead = positions
        zeros = ahead // step
    words = _digits(ahead % step + (1 << width), 1 + width)
    stops = zeros + (1 + width) * torch.arange(1, 1 + len(positions), device=positions.device)
    bits = torch.zeros(n_bits, dtype=torch.uint8, device=positions.device)
    bits[stops[:, None] + torch.arange(-1 - width, 0, device=positions.device)] = words
    return _pack(bits), int(stops[-1]) if len(stops) else 0


def take_runs(
    data: Tensor, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Tensor, int]:
    """Read k positions, each a run of zeros, a one, and a number.

    A run of r zeros moves r * step coordinates onward, and the number, which is below `step`, is added to that. Whether
    a one ends a run or is part of a number depends on everything before it. So for each one it is computed which one
    would end the next run if this one ended a run; then these links are followed from the first one on.

    Args:
        data: (ceil(n_bits / 8),) uint8.
        n_bits: Length of the stream in bits.
        k: Number of positions.
        width: Bits of the number behind each run, 0 .. 32.
        step: Coordinates that one zero of a run stands for.
        count: Number of coordinates.
        from_last: Count a run from behind the last position, otherwise from where the last run ended.

    Returns:
        The positions (k,) int64, and the bits used. These are -1, and the positions mean nothing, if the stream ends
        early, a number is not below `step`, positions do not ascend or reach `count`, or any bit behind is set.
    """
    bits = _unpack(data)
    beyond = torch.full((1,), len(bits), device=data.device)  # the index of the next one bit where there is none
    ones = torch.cat([bits.nonzero().flatten(), beyond])
    stops = ones + 1 + width  # behind the numbers that follow them
    ends = _followed(torch.searchsorted(ones, stops).clamp(max=len(ones) - 1), k)
    edges = torch.cat([torch.zeros_like(beyond), stops[ends]])
    used = int(edges[-1])
    if used > n_bits or bits[used:].any():
        return torch.zeros(k, dtype=torch.int64, device=data.device), -1
    numbers = _numbers(bits[edges[1:, None] + torch.arange(-width, 0, device=data.device)])
    onward = (ones[ends] - edges[:-1]) * step
    positions = (onward + numbers + 1).cumsum(0) - 1 if from_last else onward.cumsum(0) + numbers
    right = bool((numbers < step).all()) and ascending(positions, count)
    return positions, used if right else -1


def _followed(hops: Tensor, k: int) -> Tensor:
    """Follow links from index 0: the first k indices that they lead through.

    Two links make one that is twice as long, so this takes log2 k rounds.

    Args:
        hops: (n,) int64, from each index to another one.
        k: Number of indices.

    Returns:
        (k,) int64, the first of them 0.
    """
    bit_indices = torch.zeros(1, dtype=torch.int64, device=hops.device)
    while len(bit_indices) < k:
        bit_indices = torch.cat([bit_indices, hops[bit_indices]])
        hops = hops[hops]
    return bit_indices[:k]


def _digits(numbers: Tensor, width: int) -> Tensor:
    """Return the bits of numbers (k,), the highest first: (k, width) uint8."""
    bit_indices = torch.arange(width - 1, -1, -1, dtype=numbers.dtype, device=numbers.device)
    return (numbers[:, None] >> bit_indices & 1).to(torch.uint8)


def _numbers(digits: Tensor) -> Tensor:
    """Invert `_digits`: (k, width) uint8 -> (k,) int64."""
    return (digits.long() << torch.arange(digits.shape[1] - 1, -1, -1, device=digits.device)).sum(1)


def _pack(bits: Tensor) -> Tensor:
    """Pack bits (n,) uint8 into bytes (ceil(n / 8),) uint8."""
    padded = torch.zeros(-(-len(bits) // 8), 8, dtype=torch.uint8, device=bits.device)
    padded.view(-1)[: len(bits)] = bits
    return _numbers(padded).to(torch.uint8)


def _unpack(data: Tensor) -> Tensor:
    """Unpack bytes (n,) uint8 into bits (8 n,) uint8."""
    return _digits(data, 8).flatten()
