"""Samples of short floats."""

import torch
from hypothesis import strategies as st

from laconic.wire import ShortFloats
from support.frame_bytes import VALUE_TYPES
from support.packet_strategies import VALUES, KindSamples, firsts, vectors


@st.composite
def short_float_packets(draw) -> ShortFloats:
    values = draw(vectors(draw(st.sampled_from(VALUE_TYPES[:2]))))
    mantissa_bits = draw(st.integers(0, 22))
    return ShortFloats.of(values, mantissa_bits, draw(firsts))


SAMPLES = KindSamples(
    kind=ShortFloats,
    packets=short_float_packets(),
    about=lambda offset, count: ShortFloats.of(torch.ones(count), 3, offset),
    n_fields=3,
    scaling_error=lambda packet, exact: exact.abs() * 2.0**-packet.mantissa_bits,
    samples={
        "powers of two": ShortFloats.of(torch.tensor([1.0, -0.5, 0.0]), 0, 7),
        "short floats": ShortFloats.of(VALUES, 3),
        "short float64": ShortFloats.of(VALUES.double(), 22, 1),
    },
)
