"""Samples of dense packets."""

import torch
from hypothesis import strategies as st

from laconic.wire import Dense
from support.packet_strategies import VALUES, KindSamples, firsts, value_types, vectors


@st.composite
def dense_packets(draw) -> Dense:
    return Dense(values=draw(vectors(draw(value_types))), offset=draw(firsts))


SAMPLES = KindSamples(
    kind=Dense,
    packets=dense_packets(),
    about=lambda offset, count: Dense(values=torch.ones(count), offset=offset),
    n_fields=2,
    samples={
        "dense float32": Dense(values=VALUES, offset=4),
        "dense float64": Dense(values=VALUES.double()),
        "dense bfloat16": Dense(values=VALUES.bfloat16(), offset=1),
    },
)
