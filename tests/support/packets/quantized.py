"""Samples of quantized values."""

import dataclasses

import torch
from hypothesis import strategies as st

from laconic.kernels.api import pack_codes
from laconic.wire import QuantizedValues
from support.packet_strategies import KindSamples, block_lengths, firsts, rounded_values, value_types


def quantized_of(codes: list[int], **fields) -> QuantizedValues:
    """The packet of codes."""
    packed = pack_codes(torch.tensor(codes, dtype=torch.int32), fields["bits"])
    return QuantizedValues(packed=packed, count=len(codes), **fields)


@st.composite
def quantized_packets(draw) -> QuantizedValues:
    bits = draw(st.integers(1, 8))
    codes = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=40))
    lengths = draw(block_lengths(len(codes)))
    n, dtype = len(lengths), draw(value_types)
    ends = draw(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2 * n, max_size=2 * n))
    lows, highs = torch.tensor(ends, dtype=dtype).view(2, n).sort(0).values
    return quantized_of(
        codes, lows=lows, highs=highs, lengths=lengths, bits=bits, entropy=draw(st.booleans()), offset=draw(firsts)
    )


QUANTIZED = quantized_of(
    [0, 5, 7, 1, 2, 7, 3], lows=torch.tensor([-1.0, 0.0, -3.0]),
    highs=torch.tensor([2.5, 0.0, 4.0]), lengths=(3, 3, 1), bits=3, offset=4,
)  # fmt: skip


def _uneven(dtype: torch.dtype) -> QuantizedValues:
    return dataclasses.replace(
        QUANTIZED, lows=QUANTIZED.lows.to(dtype), highs=QUANTIZED.highs.to(dtype), lengths=(2, 4, 1)
    )


SAMPLES = KindSamples(
    kind=QuantizedValues,
    packets=quantized_packets(),
    about=lambda offset, count: quantized_of(
        [1] * count, lows=-torch.ones(1), highs=torch.ones(1), lengths=(count,), bits=3, offset=offset
    ),
    n_fields=5,
    scaling_error=lambda packet, exact: rounded_values(packet, exact.abs().max().expand_as(exact)),
    samples={
        "quantized": QUANTIZED,
        "quantized by count": dataclasses.replace(QUANTIZED, entropy=True),
        "quantized uneven": _uneven(torch.float64),
        "quantized bfloat16": _uneven(torch.bfloat16),
    },
)
