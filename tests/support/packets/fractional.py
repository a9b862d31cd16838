"""Samples of fractional values."""

import dataclasses

import torch
from hypothesis import strategies as st
from torch import Tensor

from laconic.kernels.api import pack_codes
from laconic.wire import FractionalValues
from support.packet_strategies import NEGATIVE, SCALES, VALUES, KindSamples, firsts, flags, value_types


def fractional_of(negative: Tensor, levels: list[int], **fields) -> FractionalValues:
    """The packet of signs and levels."""
    bits = fields["bits"]
    packed = pack_codes(torch.tensor(levels, dtype=torch.int32) | negative.int() << (bits - 1), bits)
    return FractionalValues(packed=packed, count=len(levels), **fields)


@st.composite
def fractional_packets(draw) -> FractionalValues:
    bits = draw(st.integers(1, 16))
    n_levels = 1 << (bits - 1)
    negative = draw(flags)
    count = negative.numel()
    levels = draw(st.lists(st.integers(0, n_levels - 1), min_size=count, max_size=count))
    means = torch.linspace(draw(st.floats(0, 2.0**100)), 0, n_levels, dtype=torch.float64).to(draw(value_types))
    return fractional_of(negative, levels, means=means, bits=bits, offset=draw(firsts))


FRACTIONAL = fractional_of(VALUES < 0, [0, 1, 3, 2, 3], means=torch.tensor([7, 3.5, 0, 0.7]), bits=3)

SAMPLES = KindSamples(
    kind=FractionalValues,
    packets=fractional_packets(),
    about=lambda offset, count: fractional_of(
        torch.ones(count) < 0, [0] * count, means=SCALES[:1], bits=1, offset=offset
    ),
    n_fields=3,
    samples={
        "fractional": dataclasses.replace(FRACTIONAL, offset=2),
        "fractional float64": dataclasses.replace(FRACTIONAL, means=FRACTIONAL.means.double()),
        "fractional bfloat16": dataclasses.replace(FRACTIONAL, means=FRACTIONAL.means.bfloat16()),
        "one bit each": fractional_of(NEGATIVE, [0] * 11, means=SCALES[:1], bits=1, offset=5),
    },
)
