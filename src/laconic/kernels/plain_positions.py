"""Bits of position streams in ordinary torch: the reference. wire/position_codes.py says what for.

A stream's bits fill bytes from the highest bit down, and a number's highest bit comes first.
"""

import torch
from torch import Tensor


def ascending(positions: Tensor, count: int) -> bool:
    """Whether positions (k,) int64 ascend, each once, within 0 .. count - 1."""
    within = (positions[:1] >= 0).all() & (positions[-1:] < count).all()
    return bool(within & (positions[1:] > positions[:-1]).all())


def put_numbers(numbers: Tensor, width: int) -> Tensor:
    """Numbers (k,) int64 below 2**width, one behind the other: (ceil(k * width / 8),) uint8. width: 1 .. 32."""
    return _pack(_digits(numbers, width).flatten())


def take_numbers(data: Tensor, k: int, width: int) -> Tensor:
    """`k` numbers of `width` bits (1 .. 32) from the first bit on: (k,) int64. `data` has k * width bits or more."""
    return _numbers(_unpack(data)[: k * width].view(k, width))


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """What `take_runs` takes, (ceil(n_bits / 8),) uint8, zero behind the bits used, and how many these are.

    positions: (k,) int64, ascending, each once; step: at most 2**width; n_bits: enough for all of them.
    """
    if from_last:
        ahead = torch.diff(positions, prepend=positions.new_full((1,), -1)) - 1
        zeros = (ahead // step).cumsum(0)  # up to each position
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
    """k times a run of zeros, a one and a number of `width` bits (0 .. 32): positions (k,) int64, and the bits used.

    A run of r goes r * step onward, and the number, which is below `step`, is added to that. from_last: a run starts
    behind the last position, and else where the last run led. data: (ceil(n_bits / 8),) uint8. The bits used are -1,
    and the positions worth nothing, if the stream ends early, a number is not below `step`, positions do not ascend or
    reach `count`, or any bit behind those used is set.

    Whether a one ends a run or is part of a number depends on all before it. So each is asked which would end the next
    run if it ended one itself, and then these hops are followed.
    """
    bits = _unpack(data)
    beyond = torch.full((1,), len(bits), device=data.device)  # where the next one is if there is none
    ones = torch.cat([bits.nonzero().flatten(), beyond])
    stops = ones + 1 + width  # of numbers behind them
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
    """The first k places that hops (n,) int64, from each place to another one, lead to from place 0 on: (k,) int64.

    Two hops make one that is twice as long: it takes log2 k rounds.
    """
    places = torch.zeros(1, dtype=torch.int64, device=hops.device)
    while len(places) < k:
        places = torch.cat([places, hops[places]])
        hops = hops[hops]
    return places[:k]


def _digits(numbers: Tensor, width: int) -> Tensor:
    """The bits of numbers (k,), the highest first: (k, width) uint8."""
    places = torch.arange(width - 1, -1, -1, dtype=numbers.dtype, device=numbers.device)
    return (numbers[:, None] >> places & 1).to(torch.uint8)


def _numbers(digits: Tensor) -> Tensor:
    """The inverse of `_digits`: (k, width) uint8 -> (k,) int64."""
    return (digits.long() << torch.arange(digits.shape[1] - 1, -1, -1, device=digits.device)).sum(1)


def _pack(bits: Tensor) -> Tensor:
    """Bits (n,) uint8 as bytes (ceil(n / 8),) uint8."""
    padded = torch.zeros(-(-len(bits) // 8), 8, dtype=torch.uint8, device=bits.device)
    padded.view(-1)[: len(bits)] = bits
    return _numbers(padded).to(torch.uint8)


def _unpack(data: Tensor) -> Tensor:
    """Bytes (n,) uint8 as bits (8 n,) uint8."""
    return _digits(data, 8).flatten()
