"""Samples of values on keyed masks."""

import torch
from hypothesis import strategies as st

from laconic.kernels.reference import hashing as reference_hashing
from laconic.wire import SelectedValues
from support.frame_bytes import KEY
from support.packet_strategies import VALUES, KindSamples, firsts, thresholds, value_types, vectors


@st.composite
def selected_value_packets(draw) -> SelectedValues:
    full, offset = draw(vectors(draw(value_types))), draw(firsts)
    key, threshold = draw(st.integers(0, 2**64 - 1)), draw(thresholds)
    selected = full[reference_hashing.keep_mask(offset, full.numel(), key, threshold)]
    return SelectedValues(values=selected, count=full.numel(), key=key, threshold=threshold, offset=offset)


SAMPLES = KindSamples(
    kind=SelectedValues,
    packets=selected_value_packets(),
    about=lambda offset, count: SelectedValues(
        values=torch.ones(count), count=count, key=1, threshold=1 << 32, offset=offset
    ),
    n_fields=5,
    samples={
        "kept values": SelectedValues(values=VALUES[:4], count=5, key=KEY, threshold=1 << 31, offset=2),
        "kept float64": SelectedValues(values=VALUES.double(), count=5, key=1, threshold=1 << 32),
        "no value kept": SelectedValues(values=VALUES[:0], count=5, key=KEY, threshold=1),
    },
)
