"""Samples of levels."""

import dataclasses

import torch
from hypothesis import strategies as st

from laconic.wire import Levels, pack_levels
from support.packet_strategies import SCALES, KindSamples, block_lengths, block_scales, firsts


def levels_of(levels: list[int], **fields) -> Levels:
    """The packet of signed levels."""
    packed = pack_levels(torch.tensor(levels, dtype=torch.int32), fields["steps"])
    return Levels(packed=packed, count=len(levels), **fields)


@st.composite
def level_packets(draw) -> Levels:
    steps = draw(st.one_of(st.sampled_from((1, 2, 3, 255)), st.integers(1, 255)))
    sampled = draw(st.lists(st.integers(-steps, steps), min_size=1, max_size=40))
    lengths = draw(block_lengths(len(sampled)))
    return levels_of(
        sampled, scales=draw(block_scales(len(lengths))), lengths=lengths, steps=steps, entropy=draw(st.booleans()),
        offset=draw(firsts),
    )  # fmt: skip


LEVELS = levels_of([0, -1, 2, 1, 0, -2, 0], scales=SCALES, lengths=(3, 3, 1), steps=3, offset=6)

SAMPLES = KindSamples(
    kind=Levels,
    packets=level_packets(),
    about=lambda offset, count: levels_of([1] * count, scales=SCALES[:1], lengths=(count,), steps=3, offset=offset),
    n_fields=5,
    samples={
        "levels": LEVELS,
        "levels by count": dataclasses.replace(LEVELS, entropy=True),
        "levels uneven": dataclasses.replace(LEVELS, scales=SCALES.bfloat16(), lengths=(2, 4, 1), steps=2),
        "levels float64": dataclasses.replace(LEVELS, scales=SCALES.double()),
    },
)
