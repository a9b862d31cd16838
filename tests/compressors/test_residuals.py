"""Error feedback around every compressor: what is corrected in place, what a packet leaves of it, how a sum begins."""

import pytest
import torch

from laconic.compressors import COMPRESSORS
from laconic.contract import ModelSpec
from support.frame_bytes import KEY, assert_same_packet
from support.inputs import over_inputs

SETTINGS = {
    "dense": [{"value_type": "bfloat16"}],
    "scaled-sign": [{"blocks": "1"}, {"blocks": "64"}],
    "top-k": [{"density": 0.3}],
    "quantized": [{"bits": 3, "scaling": "l2", "blocks": "7"}],
    "qsgd": [{"levels": 255, "blocks": "layer"}],
    "ternary": [{"blocks": "1"}],
    "clipped": [{"mantissa_bits": 0}],
    "sparsified": [{"keep": 1.0}],
}
EVERY = [cls(**chosen) for name, cls in COMPRESSORS.items() for chosen in ({}, *SETTINGS.get(name, ()))]
DRAWS = torch.randn(257, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
VECTORS = [DRAWS, torch.sinh(6 * DRAWS), 1e-30 * DRAWS[:40], 0 * DRAWS[:11], torch.tensor([-3.0])]


def spec_of(d: int) -> ModelSpec:
    """Two layers, where there are elements for them."""
    return ModelSpec.of_sizes(d - d // 3, d // 3) if d >= 3 else ModelSpec.of_sizes(d)


every = pytest.mark.parametrize("compressor", EVERY, ids=str)


@pytest.mark.slow
@every
@over_inputs("vector", VECTORS)
@over_inputs("dtype", [torch.float32, torch.float64])
def test_a_residual_is_what_a_packet_leaves_of_the_corrected_vector(compressor, vector, dtype):
    vector = vector.to(dtype)
    spec, residual = spec_of(len(vector)), 0.3 * vector.flip(0)
    expected = vector / 3 + 0.5 * residual
    made = vector.clone()
    packet = compressor.with_residual(made, residual, divisor=3, decay=0.5, spec=spec, key=KEY, offset=5)
    assert torch.equal(made, expected)
    assert_same_packet(packet, compressor(expected, spec=spec, key=KEY, offset=5))
    dense = packet.dense().clone()
    assert torch.equal(packet.unsent_of(made), expected - dense)
    assert torch.equal(packet.dense(), dense)


@pytest.mark.slow
@every
@over_inputs("vector", VECTORS)
@over_inputs("dtype", [torch.float32, torch.float64])
def test_a_sum_begins_with_zeros(compressor, vector, dtype):
    vector = -vector.to(dtype).abs()
    packet = compressor(vector, spec=spec_of(len(vector)), key=KEY)
    for out_dtype in (torch.float32, torch.float64):
        expected, out = torch.zeros(len(vector), dtype=out_dtype), torch.full((len(vector),), 7.0, dtype=out_dtype)
        packet.add_to(expected)
        packet.put_as_sum(out)
        assert out.numpy().tobytes() == expected.numpy().tobytes()
