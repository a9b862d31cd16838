"""Samples of scaled signs."""

import torch
from hypothesis import strategies as st

from laconic.kernels.reference import hashing as reference_hashing
from laconic.wire import ScaledSigns
from support.packet_strategies import NEGATIVE, SCALES, KindSamples, block_lengths, block_scales, firsts, flags

PACKED = reference_hashing.pack_bits(NEGATIVE)


@st.composite
def scaled_sign_packets(draw) -> ScaledSigns:
    negative = draw(flags)
    lengths = draw(block_lengths(negative.numel()))
    return ScaledSigns(
        packed=reference_hashing.pack_bits(negative),
        scales=draw(block_scales(len(lengths))),
        lengths=lengths,
        offset=draw(firsts),
    )


SAMPLES = KindSamples(
    kind=ScaledSigns,
    packets=scaled_sign_packets(),
    about=lambda offset, count: ScaledSigns(
        packed=reference_hashing.pack_bits(torch.ones(count) < 0), scales=SCALES[:1], lengths=(count,), offset=offset
    ),
    n_fields=4,
    samples={
        "one block": ScaledSigns(packed=PACKED, scales=SCALES[:1], lengths=(11,), offset=3),
        "blocks of 4": ScaledSigns(packed=PACKED, scales=SCALES, lengths=(4, 4, 3), offset=0),
        "uneven blocks": ScaledSigns(packed=PACKED, scales=SCALES.double(), lengths=(2, 8, 1), offset=9),
        "bfloat16 scales": ScaledSigns(packed=PACKED, scales=SCALES[:2].bfloat16(), lengths=(6, 5), offset=1),
    },
)
