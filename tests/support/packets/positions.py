"""Samples of positions without values."""

import torch
from hypothesis import strategies as st

from laconic.wire import POSITION_CODES, Positions
from support.packet_strategies import INDICES, KindSamples, codes, counts, firsts, index_lists


@st.composite
def position_packets(draw) -> Positions:
    count = draw(counts)
    return Positions(indices=draw(index_lists(count)), count=count, offset=draw(firsts), code=draw(codes))


SAMPLES = KindSamples(
    kind=Positions,
    packets=position_packets(),
    about=lambda offset, count: Positions(indices=torch.arange(1), count=count, offset=offset),
    n_fields=6,
    scales="nothing",
    samples={
        f"positions as {code}": Positions(indices=INDICES, count=14, offset=6, code=code) for code in POSITION_CODES
    },
)
