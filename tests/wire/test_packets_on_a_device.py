"""Packets of vectors that are not in the host's memory: what is copied to the host is what is sent, and no more; and
nothing at all where it is sent from there.

There is no GPU here: `support.elsewhere` stands in for one.
"""

import pytest
import torch

from laconic.compressors import COMPRESSORS, QSGD, Fractional, Quantized, ScaledSign, Sign, Ternary, TopK
from laconic.contract import ModelSpec
from laconic.wire import HEADER_BYTES, Frame, Header, encode, encode_split
from support.elsewhere import Elsewhere, Noted, stand_in_for_a_gpu

D = 6000
LAYERS = (4000, 1990, 10)
HEADER = Header(role="worker", rank=0, round=0)
KEY = 0x4806654E26238EC1

ALL = [make() for make in COMPRESSORS.values()]
ALL += [
    Sign(keep=0.3), ScaledSign(blocks="512"), Fractional(bits=9), Ternary(entropy=True),
    Quantized(bits=2, entropy=True), QSGD(levels=100), TopK(code="list"), TopK(code="rice"), TopK(code="entropy"),
]  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch):
    stand_in_for_a_gpu(monkeypatch)


def work_on_the_host(compressor, packet) -> int:
    """How many bytes come to the host to be coded there: positions and symbols, in the code "entropy"."""
    positions = 8 * len(packet.indices) if getattr(compressor, "code", None) == "entropy" else 0
    symbols = len(packet.packed) if getattr(compressor, "entropy", False) else 0
    return positions + symbols


@pytest.mark.parametrize("compressor", ALL, ids=repr)
def test_what_comes_to_the_host_is_what_is_sent(stand_in, compressor):
    vector = torch.randn(D, generator=torch.Generator().manual_seed(3))
    here = encode(Frame(header=HEADER, packet=compressor(vector, spec=ModelSpec.of_sizes(*LAYERS), key=KEY)))
    with Noted() as noted:
        packet = compressor(Elsewhere(vector), spec=ModelSpec.of_sizes(*LAYERS), key=KEY)
        assert packet.finite
        there = encode(Frame(header=HEADER, packet=packet))
    assert there.numel() == here.numel()
    assert sum(noted.bytes_copied) <= there.numel() + work_on_the_host(compressor, packet)


@pytest.mark.parametrize("compressor", ALL, ids=repr)
def test_of_a_split_frame_nothing_comes_to_the_host_but_single_numbers(stand_in, compressor):
    vector = torch.randn(D, generator=torch.Generator().manual_seed(3))
    here = encode(Frame(header=HEADER, packet=compressor(vector, spec=ModelSpec.of_sizes(*LAYERS), key=KEY)))
    with Noted() as noted:
        packet = compressor(Elsewhere(vector), spec=ModelSpec.of_sizes(*LAYERS), key=KEY)
        assert packet.finite
        there = encode_split(Frame(header=HEADER, packet=packet), torch.device("meta"))
    assert isinstance(there.payload, Elsewhere)
    assert torch.equal(there.payload.held, here[HEADER_BYTES:])
    more_than_a_number = [n_bytes for n_bytes in noted.bytes_copied if n_bytes > 8]
    assert sum(more_than_a_number) <= work_on_the_host(compressor, packet)
    assert len(noted.bytes_copied) < D // 100
