"""What the samples of a packet kind are made of; the kinds are in `packets/`, one file each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from hypothesis import strategies as st
from torch import Tensor

from laconic.wire import POSITION_CODES, Packet
from support.frame_bytes import VALUE_TYPES


def rounded_values(packet: Packet, exact: Tensor) -> Tensor:
    """The error of values that are rounded one by one."""
    return exact.abs() * (2.0**-7 if packet.value_type == torch.bfloat16 else 1e-5)


@dataclass(frozen=True, kw_only=True)
class KindSamples:
    """Samples of one kind of packet. The common tests find them, run over each, and refuse a kind without."""

    kind: type[Packet]
    packets: st.SearchStrategy[Packet]
    """Packets of at most 40 coordinates."""
    samples: Mapping[str, Packet]
    """One small packet of each shape of payload, of vectors with at most 50 elements."""
    about: Callable[[int, int], Packet]
    """A packet of float32 values about a slice, from its offset and count."""
    n_fields: int
    """How many u32 a payload starts with; what takes eight bytes is two of them."""
    can_be_split: bool = True
    """Whether the part of a packet is a packet."""
    scales: Literal["values", "signs", "nothing"] = "values"
    """What a scaled packet changes: values are as many times as large, signs only inverted."""
    scaling_error: Callable[[Any, Tensor], Tensor] = rounded_values
    """The largest error (count,) that a scaled packet may have, from it and its exact dense form (count,) float64."""
    read_from_page: Callable[[bytes, int], tuple[int, Sequence[float], int]] | None = None
    """Offset, dense form and payload bits, from payload and value type: a reader written from FORMAT.md without the
    library, for a kind that `tests/wire/page_decoder.py` does not read."""


def vectors(dtype: torch.dtype, largest: float = 2.0**100) -> st.SearchStrategy[Tensor]:
    """Finite values, (1 .. 40,) of dtype."""
    floats = st.floats(-largest, largest, width=64 if dtype == torch.float64 else 32)
    return st.lists(floats, min_size=1, max_size=40).map(lambda values: torch.tensor(values, dtype=dtype))


firsts = st.one_of(st.just(0), st.integers(0, 1000), st.integers(0, 2**32 - 41))
value_types = st.sampled_from(VALUE_TYPES)
thresholds = st.one_of(st.sampled_from((1, 1 << 31, (1 << 32) - 1, 1 << 32)), st.integers(1, 1 << 32))
flags = st.lists(st.booleans(), min_size=1, max_size=40).map(torch.tensor)
counts = st.integers(1, 40)
codes = st.sampled_from(POSITION_CODES)


@st.composite
def block_lengths(draw, count: int) -> tuple[int, ...]:
    """Lengths that add up to count, of one size or not."""
    bounds = draw(
        st.one_of(st.sets(st.integers(1, count)), st.integers(1, count).map(lambda size: range(size, count, size)))
    )
    edges = sorted({0, count, *bounds})
    return tuple(stop - start for start, stop in pairwise(edges))


@st.composite
def block_scales(draw, n_blocks: int) -> Tensor:
    """Scales of blocks, (n_blocks,), not negative."""
    scales = draw(st.lists(st.floats(0, 2.0**100, width=32), min_size=n_blocks, max_size=n_blocks))
    return torch.tensor(scales, dtype=draw(value_types))


@st.composite
def index_lists(draw, count: int, k: int | None = None) -> Tensor:
    """Ascending positions below `count`, (k,) int64; any number of them where k is None."""
    size = {} if k is None else {"min_size": k, "max_size": k}
    return torch.tensor(sorted(draw(st.sets(st.integers(0, count - 1), **size))), dtype=torch.int64)


# Small vectors that several kinds are sampled with.
NEGATIVE = torch.tensor([True, False, False, True, True, False, True, True, False, True, True])
VALUES = torch.tensor([1.5, -2.0, 0.0, 3.25, -0.0])
SCALES = torch.tensor([0.5, 2.0, 0.0])
INDICES = torch.tensor([1, 4, 5, 9, 12])
