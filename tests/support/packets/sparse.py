"""Samples of sparse packets, with values of every kind that they may carry."""

import dataclasses

import torch
from hypothesis import strategies as st
from torch import Tensor

from laconic.wire import Dense, Packet, Sparse
from support.packet_strategies import INDICES, VALUES, KindSamples, codes, firsts, index_lists, value_types
from support.packets.fractional import FRACTIONAL
from support.packets.levels import LEVELS
from support.packets.quantized import QUANTIZED

SEVEN = torch.tensor([0, 2, 3, 7, 11, 12, 20])


def _of_nestable_kinds() -> st.SearchStrategy[Packet]:
    from support.packets import BY_KIND  # when all are known

    none = st.builds(lambda dtype: Dense(values=torch.empty(0, dtype=dtype)), value_types)
    return st.one_of(none, *(found.packets for found in BY_KIND.values() if found.kind.is_nestable))


nested_packets = st.deferred(_of_nestable_kinds).map(lambda packet: dataclasses.replace(packet, offset=0))


@st.composite
def sparse_packets(draw) -> Sparse:
    values = draw(nested_packets)
    count = draw(st.integers(max(values.count, 1), 40))
    indices = draw(index_lists(count, values.count))
    return Sparse(indices=indices, values=values, count=count, offset=draw(firsts), code=draw(codes))


def _scaling_error(packet: Sparse, exact: Tensor) -> Tensor:
    from support.packets import BY_KIND  # when all are known

    error = torch.zeros_like(exact)
    if packet.indices.numel():
        error[packet.indices] = BY_KIND[packet.values.name].scaling_error(packet.values, exact[packet.indices])
    return error


SAMPLES = KindSamples(
    kind=Sparse,
    packets=sparse_packets(),
    about=lambda offset, count: Sparse(
        indices=torch.arange(1), values=Dense(values=torch.ones(1)), count=count, offset=offset
    ),
    n_fields=6,
    scaling_error=_scaling_error,
    samples={
        "sparse float32": Sparse(indices=INDICES, values=Dense(values=VALUES), count=13, offset=2),
        "sparse float64": Sparse(indices=INDICES, values=Dense(values=VALUES.double()), count=20, code="list"),
        "sparse bfloat16": Sparse(
            indices=INDICES, values=Dense(values=VALUES.bfloat16()), count=17, offset=1, code="entropy"
        ),
        "sparse without values": Sparse(indices=INDICES[:0], values=Dense(values=VALUES[:0]), count=9),
        "sparse fractions": Sparse(indices=INDICES, values=FRACTIONAL, count=14, offset=3),
        "sparse quantized": Sparse(
            indices=SEVEN, values=dataclasses.replace(QUANTIZED, offset=0, lengths=(2, 4, 1)), count=22, code="rice"
        ),
        "sparse levels by count": Sparse(
            indices=SEVEN, values=dataclasses.replace(LEVELS, offset=0, entropy=True), count=21, offset=4
        ),
    },
)
