"""The fractional quantizer on a GPU: one pass for the range, one for codes and sums.

Reference: `reference/fractional.py`. Codes are the same bits. Means are added in float64: up to 16 levels in an order
that is always the same, above in any order. The host waits for the range and for nothing else.
"""

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.gpu.compile import blocks_of, kernel, launch
from laconic.kernels.gpu.packed_codes import BLOCK, load_codes, packed_like, store_codes
from laconic.kernels.gpu.packed_codes import pack_codes as pack_codes
from laconic.kernels.gpu.packed_codes import unpack_codes as unpack_codes
from laconic.kernels.reference.fractional import level_bounds

_FEW = 16  # up to so many levels are added block by block


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """See `reference.fractional.fractional_codes`."""
    values = values.contiguous()
    count, n_levels, device = len(values), 1 << (bits - 1), values.device
    n_blocks = blocks_of(count, BLOCK)
    largest, smallest = _range(values)
    bounds = level_bounds(largest, smallest, bits, values.dtype).to(device)
    packed = packed_like(values, count, bits)
    rows = n_blocks if n_levels <= _FEW else 1
    sums = torch.zeros(rows, n_levels, dtype=torch.float64, device=device)
    counts = torch.zeros(rows, n_levels, dtype=torch.int64, device=device)
    launch(
        _codes, n_blocks, values, count, bounds, packed, sums, counts,
        LEVELS=n_levels, FEW=n_levels <= _FEW, BITS=bits, BLOCK=BLOCK,
    )  # fmt: skip
    return packed, (sums.sum(0) / counts.sum(0).clamp(min=1)).to(values.dtype)


def fractional_dense(packed: Tensor, means: Tensor, count: int, bits: int) -> Tensor:
    """See `reference.fractional.fractional_dense`."""
    made = torch.empty(count, dtype=means.dtype, device=packed.device)
    _put(packed, means, bits, made, add=False)
    return made


def put_fractional(packed: Tensor, means: Tensor, count: int, bits: int, out: Tensor) -> None:
    """See `reference.fractional.put_fractional`. The packed codes may be in the host's memory."""
    packed, means = packed.to(out.device), means.to(out.device)
    if out.dtype == means.dtype:
        _put(packed, means, bits, out, add=False)
    else:
        out.copy_(fractional_dense(packed, means, count, bits))


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """See `reference.fractional.add_fractional`. The packed codes may be in the host's memory."""
    packed, means = packed.to(total.device), means.to(total.device)
    if total.dtype == means.dtype:
        _put(packed, means, bits, total, add=True)
    else:
        total.add_(fractional_dense(packed, means, count, bits))


def _put(packed: Tensor, means: Tensor, bits: int, out: Tensor, *, add: bool) -> None:
    launch(
        _dense, blocks_of(len(out), BLOCK), out, packed.contiguous(), means.contiguous(), len(out),
        ADD=add, BITS=bits, BLOCK=BLOCK,
    )  # fmt: skip


def _range(values: Tensor) -> tuple[float, float]:
    """Return the largest magnitude, and the smallest that is not 0; both 0 where all are. NaN counts as largest."""
    keys = values.view(torch.int32 if values.dtype == torch.float32 else torch.int64)
    mask = torch.iinfo(keys.dtype).max
    ends = torch.zeros(2, dtype=keys.dtype, device=keys.device)
    launch(_key_range, blocks_of(len(keys), BLOCK), keys, len(keys), ends, MASK=mask, BLOCK=BLOCK)
    largest, under = ends.tolist()
    if largest == 0:
        return 0.0, 0.0
    floats = torch.tensor([largest, mask - under + 1], dtype=keys.dtype).view(values.dtype)
    return float(floats[0]), float(floats[1])


@kernel
def _key_range(keys: tl.tensor, count: tl.int64, ends: tl.tensor, MASK: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Write the largest magnitude as an integer, and by how much the smallest above 0, less 1, is below MASK."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + at, mask=at < count, other=0) & MASK
    tl.atomic_max(ends, tl.max(key, 0))
    tl.atomic_max(ends + 1, tl.max(tl.where(key > 0, MASK - (key - 1), 0), 0))


@kernel
def _codes(
    values: tl.tensor, count: tl.int64, bounds: tl.tensor, packed: tl.tensor, sums: tl.tensor, counts: tl.tensor,
    LEVELS: tl.constexpr, FEW: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(values + at, mask=inside, other=0)
    magnitude = tl.abs(value)
    level = tl.zeros([BLOCK], tl.int32)
    for step in tl.static_range(BITS - 1):  # there is one bound fewer than a power of two
        further = level + (1 << (BITS - 2 - step))
        level = tl.where(tl.load(bounds + further - 1) >= magnitude, further, level)
    codes = level | ((value < 0).to(tl.int32) << (BITS - 1))
    store_codes(tl.where(inside, codes, 0), packed, count, BITS, BLOCK)
    if FEW:
        for one in tl.static_range(LEVELS):
            here = inside & (level == one)
            tl.store(sums + block * LEVELS + one, tl.sum(tl.where(here, magnitude, 0.0).to(tl.float64), 0))
            tl.store(counts + block * LEVELS + one, tl.sum(here.to(tl.int64), 0))
    else:
        tl.atomic_add(sums + level, magnitude.to(tl.float64), mask=inside)
        tl.atomic_add(counts + level, inside.to(tl.int64), mask=inside)


@kernel
def _dense(
    out: tl.tensor, packed: tl.tensor, means: tl.tensor, count: tl.int64,
    ADD: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    codes = load_codes(packed, at, count, BITS)
    value = tl.load(means + (codes & ((1 << (BITS - 1)) - 1)))
    value = tl.where((codes >> (BITS - 1)) > 0, -value, value)
    if ADD:
        value = tl.load(out + at, mask=at < count, other=0) + value
    tl.store(out + at, value, mask=at < count)
