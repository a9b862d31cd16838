"""Samples of signs on keyed masks."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from laconic.kernels.reference import hashing as reference_hashing
from laconic.wire import Signs
from support.frame_bytes import KEY
from support.packet_strategies import NEGATIVE, KindSamples, firsts, flags, thresholds, value_types


def signs_of(
    negative: Tensor, *, offset: int = 0, key: int = KEY, threshold: int = 1 << 32, dtype=torch.float32
) -> Signs:
    """The signs packet of a full vector's signs, without those that the Bernoulli draws drop."""
    selected = negative[reference_hashing.keep_mask(offset, negative.numel(), key, threshold)]
    return Signs(
        packed=reference_hashing.pack_bits(selected), n_selected=selected.numel(), offset=offset,
        count=negative.numel(), key=key, threshold=threshold, dtype=dtype,
    )  # fmt: skip


@st.composite
def sign_packets(draw) -> Signs:
    return signs_of(
        draw(flags),
        offset=draw(firsts),
        key=draw(st.integers(0, 2**64 - 1)),
        threshold=draw(thresholds),
        dtype=draw(value_types),
    )


SAMPLES = KindSamples(
    kind=Signs,
    packets=sign_packets(),
    about=lambda offset, count: signs_of(torch.ones(count) < 0, offset=offset),
    n_fields=5,
    scales="signs",
    samples={
        "all signs": signs_of(NEGATIVE, offset=2),
        "kept signs": signs_of(NEGATIVE, offset=5, threshold=1 << 31),
        "no sign kept": signs_of(NEGATIVE, threshold=1),
    },
)
