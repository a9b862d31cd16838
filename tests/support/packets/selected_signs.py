"""Samples of scaled signs on keyed masks."""

import struct

import torch
from hypothesis import strategies as st

from laconic.kernels.reference import hashing as reference_hashing
from laconic.wire import SelectedSigns
from support.packet_strategies import NEGATIVE, KindSamples
from support.packets.signs import sign_packets, signs_of

WIDTHS = {0: "f", 1: "d"}


@st.composite
def selected_sign_packets(draw) -> SelectedSigns:
    signs = draw(sign_packets())
    scale = draw(st.floats(0, 2.0**100, width=32)) if signs.n_selected else 0.0
    return SelectedSigns(signs=signs, scale=torch.tensor([scale], dtype=signs.dtype))


def read_from_page(payload: bytes, value_type: int) -> tuple[int, list[float], int]:
    """Section 3.12, with the draws of 3.2: offset, dense form and payload bits."""
    offset, count, key, below = struct.unpack_from("<IIQI", payload)
    width = {0: 4, 1: 8, 2: 2}[value_type]
    if value_type == 2:
        (scale,) = struct.unpack("<f", bytes(2) + payload[-2:])
    else:
        (scale,) = struct.unpack(f"<{WIDTHS[value_type]}", payload[-width:])
    selected = reference_hashing.keep_mask(offset, count, key, below + 1).tolist()
    bits = iter([byte >> j & 1 for byte in payload[20:-width] for j in range(8)])
    dense = [scale * (1 - 2 * next(bits)) if one else 0.0 for one in selected]
    return offset, dense, sum(selected) + 8 * width


SAMPLES = KindSamples(
    kind=SelectedSigns,
    packets=selected_sign_packets(),
    about=lambda offset, count: SelectedSigns(
        signs=signs_of(torch.ones(count) < 0, offset=offset), scale=torch.ones(1)
    ),
    n_fields=5,
    samples={
        "scaled kept signs": SelectedSigns(
            signs=signs_of(NEGATIVE, offset=5, threshold=1 << 31), scale=torch.tensor([0.75])
        ),
        "all signs, scaled": SelectedSigns(
            signs=signs_of(NEGATIVE, dtype=torch.float64), scale=torch.tensor([0.5], dtype=torch.float64)
        ),
        "no sign kept, scaled": SelectedSigns(signs=signs_of(NEGATIVE, threshold=1), scale=torch.zeros(1)),
    },
    read_from_page=read_from_page,
)
