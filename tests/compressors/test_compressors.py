"""Every compressor keeps every claim it makes, on ordinary, heavy-tailed and degenerate vectors.

A new compressor is tested from the moment it is in COMPRESSORS; SETTINGS only adds what its defaults do not reach.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compressors import (
    COMPRESSORS,
    Compressor,
    DenseValues,
    ScaledSign,
    TopK,
    block_lengths,
    scaled_signs,
    signs,
    threshold_of,
)
from laconic.contract import ModelSpec
from laconic.wire import POSITION_CODES, decode
from support.frame_bytes import KEY, VALUE_TYPES, assert_same_packet, bytes_of
from support.inputs import over_inputs

SETTINGS = {
    "dense": [{"value_type": "bfloat16"}],
    "sign": [{"keep": 0.3}, {"keep": 1e-12}],
    "scaled-sign": [{"blocks": "vector"}, {"blocks": "1"}, {"blocks": "3"}, {"blocks": "64"}, {"blocks": "1000"}],
    "fractional": [{"bits": 1}, {"bits": 2}, {"bits": 8}, {"bits": 16}],
    "top-k": [
        {"k": 1, "blocks": "vector", "code": "list"},
        {"density": 0.3, "code": "rice"},
        {"density": 1.0, "blocks": "vector", "code": "entropy"},
    ],
    "quantized": [{"bits": 1, "blocks": "layer", "entropy": True}, {"bits": 3, "scaling": "l2", "blocks": "7"}],
    "qsgd": [{"levels": 255, "blocks": "layer", "entropy": True}],
    "ternary": [{"blocks": "1", "entropy": True}],
    "clipped": [{"mantissa_bits": 0}, {"mantissa_bits": 22}],
    "sparsified": [{"keep": 0.3}, {"keep": 1.0}],
    "selected-sign": [{"keep": 1.0}, {"keep": 1e-12}],
}
EVERY = [cls(**chosen) for name, cls in COMPRESSORS.items() for chosen in ({}, *SETTINGS.get(name, ()))]


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def student(d: int) -> torch.Tensor:
    """Student's t with two degrees of freedom: no variance."""
    return random(d, seed=2) / (random(d, 2, seed=3).square().sum(1) / 2).sqrt()


VECTORS = {
    "normal": random(257),
    "heavy-tailed": student(257),
    "constant": torch.full((20,), -0.7, dtype=torch.float64),
    "all-zero": torch.zeros(11, dtype=torch.float64),
    "one entry": torch.tensor([-3.0], dtype=torch.float64),
    "one element of many": torch.eye(30, dtype=torch.float64)[7],
    "tiny": 1e-30 * random(40),
    "non-contiguous": random(60, 4)[:, 2],
    "every other": random(101)[::2],
}

every = pytest.mark.parametrize("compressor", EVERY, ids=str)
over_vectors = over_inputs("name", VECTORS)
over_dtypes = over_inputs("dtype", VALUE_TYPES)


def vector_of(name: str, dtype: torch.dtype) -> torch.Tensor:
    """The vector in another type, as little contiguous as it was."""
    vector = VECTORS[name].to(dtype)
    if VECTORS[name].is_contiguous():
        return vector
    strided = torch.zeros(3 * len(vector), dtype=dtype)
    strided[1::3] = vector
    return strided[1::3]


def spec_of(d: int) -> ModelSpec:
    return ModelSpec.of_sizes(d - d // 3, d // 3) if d >= 3 else ModelSpec.of_sizes(d)


def squared(vector: torch.Tensor) -> float:
    return float(vector.double().square().sum())


def test_every_compressor_is_entered_under_its_own_name():
    assert {name: cls.name for name, cls in COMPRESSORS.items()} == {name: name for name in COMPRESSORS}


@pytest.mark.slow
@every
@over_vectors
@over_dtypes
def test_a_packet_covers_the_vector_and_leaves_it_alone(compressor, name, dtype):
    vector = vector_of(name, dtype)
    before = vector.clone()
    packet = compressor(vector, spec=spec_of(len(vector)), key=KEY, offset=5)
    assert (packet.offset, packet.count) == (5, len(vector))
    assert packet.finite
    assert packet.dense().shape == vector.shape
    assert packet.dense().dtype == packet.dtype
    assert packet.dtype in (torch.float32, torch.float64)
    assert torch.equal(vector, before)
    again = compressor(vector, spec=spec_of(len(vector)), key=KEY, offset=5)
    assert_same_packet(packet, again)
    assert_same_packet(packet, decode(bytes_of(packet), 5 + len(vector)).packet)


CONTRACTING = {"identity", "dense", "scaled-sign", "top-k", "clipped", "fractional"}
NOT_CONTRACTING = {"sign", "selected-sign", "quantized", "qsgd", "ternary", "natural", "sparsified"}


def promising(vector: torch.Tensor, spec: ModelSpec | None = None) -> list[Compressor]:
    return [compressor for compressor in EVERY if compressor.delta(vector, spec) is not None]


def test_our_compressors_promise_a_contraction_or_none_as_they_always_did():
    found = promising(VECTORS["normal"])
    assert [c for c in EVERY if c.name in CONTRACTING] == [c for c in found if c.name in CONTRACTING]
    assert not NOT_CONTRACTING & {c.name for c in found}


@every
@over_vectors
@over_dtypes
def test_the_promised_contraction_holds(compressor, name, dtype):
    vector = vector_of(name, dtype)
    for spec in (None, spec_of(len(vector))):
        delta = compressor.delta(vector, spec)
        if delta is None:  # of no vector: see the test below
            return
        assert 0 < delta <= 1
        error = compressor(vector, spec=spec, key=KEY).dense().double() - vector.double()
        assert squared(error) <= ((1 - delta) * (1 + 1e-9) + 1e-30) * squared(vector)  # rounding of the two sides


@pytest.mark.slow
@over_vectors
@over_dtypes
def test_a_compressor_promises_a_contraction_of_every_vector_or_of_none(name, dtype):
    vector = vector_of(name, dtype)
    for spec in (None, spec_of(len(vector))):
        assert promising(vector, spec) == promising(VECTORS["normal"])


@pytest.mark.parametrize("compressor", [c for c in EVERY if c.separable], ids=str)
@over_vectors
@over_dtypes
def test_a_compressed_slice_is_the_slice_of_the_compressed_vector(compressor, name, dtype):
    vector = vector_of(name, dtype)
    d, offset = len(vector), 1000
    full = compressor(vector, key=KEY, offset=offset)
    for start, stop in ((0, d), (0, 1), (d - 1, d), (d // 3, d - d // 4)):
        if start == stop:
            continue
        slice_ = compressor(vector[start:stop], key=KEY, offset=offset + start)
        assert_same_packet(slice_, full.part(offset + start, offset + stop))
        assert bytes_of(slice_) == bytes_of(full.part(offset + start, offset + stop))


def test_a_compressor_that_reads_no_key_sends_the_same_with_every_key():
    vector = vector_of("normal", torch.float32)
    silent = [compressor for compressor in EVERY if not compressor.reads_key]
    assert silent
    for compressor in silent:
        assert bytes_of(compressor(vector, key=KEY)) == bytes_of(compressor(vector, key=0)), compressor


@pytest.mark.slow
@pytest.mark.parametrize("compressor", [c for c in EVERY if c.unbiased], ids=str)
@over_vectors
@over_inputs("dtype", [torch.float32, torch.float64])
def test_over_keys_the_mean_is_the_vector_and_the_variance_the_one_on_paper(compressor, name, dtype):
    vector = vector_of(name, dtype)
    spec = spec_of(len(vector))
    n_keys = 100
    sampled = torch.stack([compressor(vector, spec=spec, key=key).dense().double() for key in range(n_keys)])
    errors = sampled - vector.double()
    variances = compressor.variances(vector, spec)
    rounding = 2e-7 * vector.double().abs()
    seldom = 10 * float(errors.abs().max()) / n_keys  # what was drawn in none of the keys, or in one by chance
    assert bool((errors.mean(0).abs() <= 6 * (variances / n_keys).sqrt() + seldom + rounding).all())
    totals = errors.square().sum(1)
    allowed = 6 * float(totals.std()) / n_keys**0.5 + squared(rounding)
    assert float(totals.mean()) == pytest.approx(float(variances.sum()), abs=allowed)


@over_inputs("compressor", [c for c in EVERY if not c.unbiased])
def test_no_variance_is_promised_where_the_mean_is_not_the_vector(compressor):
    assert compressor.variances(VECTORS["normal"]) is None


@every
def test_a_packet_costs_what_the_compressor_says_in_expectation(compressor):
    for spec in (ModelSpec.of_sizes(257), ModelSpec.of_sizes(200, 57)):
        packet = compressor(VECTORS["normal"], spec=spec, key=KEY)
        assert packet.paper_bits == pytest.approx(compressor.paper_bits(spec), rel=1e-9, abs=1e-6)


@every
@over_inputs(
    "wrong",
    [torch.zeros(2, 3), torch.zeros(()), torch.zeros(4, dtype=torch.int64), torch.ones(4) > 0, torch.zeros(4) * 1j],
)
def test_what_is_no_flat_vector_of_floats_is_refused(compressor, wrong):
    with pytest.raises(TypeError, match=r"a flat vector of floats, not torch\.\w+ of shape \("):
        compressor(wrong)


# Rounding


def test_identity_sends_every_value_as_it_is():
    for dtype, sent in ((torch.float32, torch.float32), (torch.float64, torch.float64), (torch.float16, torch.float32)):
        vector = VECTORS["heavy-tailed"].to(dtype)
        packet = COMPRESSORS["identity"]()(vector)
        assert packet.value_type == sent
        assert torch.equal(packet.dense(), vector.to(sent))


def test_dense_values_are_rounded_to_nearest():
    vector = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-9)], dtype=torch.float64)  # two ties to even, one not
    assert DenseValues(value_type="bfloat16")(vector).dense().tolist() == [1.0, 1 + 2**-6, -1.0]
    assert DenseValues()(vector).dense().tolist() == vector.tolist()
    assert DenseValues()(torch.tensor([1 + 2**-24], dtype=torch.float64)).dense().tolist() == [1.0]


# Signs


@over_inputs("dtype", [*VALUE_TYPES, torch.float16])
def test_the_sign_of_zero_is_plus_one(dtype):
    vector = torch.tensor([0.0, -0.0, -1e-7, 1e-7], dtype=dtype)
    assert signs(vector).dense().tolist() == [1.0, 1.0, -1.0, 1.0]
    packet = scaled_signs(vector, lengths=(4,))
    assert packet.packed.tolist() == [0b0100]
    assert packet.dense().signbit().tolist() == [False, False, True, False]
    assert scaled_signs(-torch.zeros(3), lengths=(3,)).dense().signbit().tolist() == [False] * 3


def test_signs_are_sent_where_the_mask_selects_and_nothing_is_residual_elsewhere():
    vector = VECTORS["normal"].float()
    packet = signs(vector, keep=0.3, key=KEY, offset=9)
    expected = torch.where(packet.mask, torch.where(vector < 0, -1.0, 1.0), 0.0)
    assert torch.equal(packet.dense(), expected)
    assert 0 < int(packet.mask.sum()) < 257
    assert not torch.equal(signs(vector, keep=0.3, key=KEY + 1, offset=9).mask, packet.mask)


@over_inputs(
    ("keep", "threshold"), [(1.0, 1 << 32), (0.5, 1 << 31), (2**-32, 1), (1e-300, 1), (1 - 2**-32, (1 << 32) - 1)]
)
def test_the_threshold_is_the_selected_share(keep, threshold):
    assert threshold_of(keep) == threshold


@settings(deadline=None, max_examples=200)
@given(st.floats(-4, 4), st.sampled_from([1.0, 0.5, 0.1]), st.integers(0, 50), st.integers(1, 60))
def test_the_sign_compressors_error_is_the_one_on_paper_and_shrinks_below_twice_the_mean(c, keep, key, d):
    p = student(257)[:d]
    sent = signs(p, keep=keep, key=key).dense()
    selected = p.abs()[sent != 0]
    error = squared(c * sent - p)
    on_paper = squared(p) - 2 * c * float(selected.sum()) + c * c * len(selected)
    assert error == pytest.approx(on_paper, rel=1e-12, abs=1e-12)
    bound = 2 * float(selected.mean()) if len(selected) else 0.0
    if min(abs(c), abs(c - bound)) > 1e-6:  # away from the two ends, where rounding decides
        assert (error < squared(p)) == (0 < c < bound)


def test_without_a_selected_coordinate_nothing_shrinks():
    p = VECTORS["normal"]
    sent = signs(p, keep=1e-12, key=1).dense()
    assert not sent.any()
    assert squared(0.1 * sent - p) == squared(p)


# Scaled signs


@over_inputs(
    ("blocks", "layers", "scales", "dense"),
    [
        ("vector", (), [3.0], [3.0, -3.0, 3.0, -3.0, 3.0]),
        ("layer", (), [3.0], [3.0, -3.0, 3.0, -3.0, 3.0]),
        ("layer", (1, 4), [1.0, 3.5], [1.0, -3.5, 3.5, -3.5, 3.5]),
        ("layer", (4, 1), [2.5, 5.0], [2.5, -2.5, 2.5, -2.5, 5.0]),
        ("layer", (2, 0, 3, 0), [1.5, 4.0], [1.5, -1.5, 4.0, -4.0, 4.0]),
        ("2", (1, 4), [1.5, 3.5, 5.0], [1.5, -1.5, 3.5, -3.5, 5.0]),
        ("4", (), [2.5, 5.0], [2.5, -2.5, 2.5, -2.5, 5.0]),
        ("1", (), [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, -2.0, 3.0, -4.0, 5.0]),
        ("5", (), [3.0], [3.0, -3.0, 3.0, -3.0, 3.0]),
        ("6", (), [3.0], [3.0, -3.0, 3.0, -3.0, 3.0]),
    ],
)
def test_a_blocks_scale_is_its_mean_magnitude(blocks, layers, scales, dense):
    spec = ModelSpec.of_sizes(*(layers or (5,)))
    vector = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0])
    packet = ScaledSign(blocks=blocks)(vector, spec=spec)
    assert packet.scales.tolist() == scales
    assert packet.dense().tolist() == dense
    assert ScaledSign(blocks=blocks).paper_bits(spec) == 5 + 32 * len(scales) == packet.payload_bits


def test_layers_that_do_not_add_up_are_our_own_mistake():
    with pytest.raises(AssertionError):
        block_lengths("layer", 5, ModelSpec.of_sizes(2, 2))


@pytest.mark.parametrize("blocks", ["vector", "layer", "1", "7"])
@over_vectors
@over_dtypes
def test_scaled_signs_keep_the_sum_of_magnitudes_of_every_block(name, dtype, blocks):
    vector = vector_of(name, dtype)
    spec = spec_of(len(vector))
    packet = ScaledSign(blocks=blocks)(vector, spec=spec)
    lengths = list(block_lengths(blocks, len(vector), spec))
    for ours, peer in zip(packet.dense().split(lengths), vector.double().split(lengths), strict=True):
        assert float(ours.double().abs().sum()) == pytest.approx(float(peer.abs().sum()), rel=1e-6)


def test_a_long_float32_vector_is_added_up_in_float64():
    vector = torch.full((1 << 17,), 0.1)
    for blocks in ("vector", "layer"):
        packet = ScaledSign(blocks=blocks)(vector, spec=ModelSpec.of_sizes(3, (1 << 17) - 3))
        assert packet.scales.unique().tolist() == [vector[0].item()]


@over_inputs(
    ("vector", "blocks", "delta"),
    [
        ([3.0, -1.0], "vector", 0.8),
        ([0.0, 0.0, -9.0, 0.0], "vector", 0.25),
        ([-2.0, 2.0, 2.0], "vector", 1.0),
        ([0.0, 0.0], "vector", 1.0),
        ([3.0, -1.0, 0.0, 7.0, 5.0], "2", 0.5),
        ([0.0, 0.0, 3.0, -1.0], "2", 0.8),
        ([3e200, -1e200], "vector", 0.8),
        ([3e-200, -1e-200], "vector", 0.8),
    ],
)
def test_the_contraction_of_scaled_signs_is_the_worst_blocks(vector, blocks, delta):
    values = torch.tensor(vector, dtype=torch.float64)
    assert ScaledSign(blocks=blocks).delta(values) == pytest.approx(delta, rel=1e-15)


@pytest.mark.parametrize("blocks", ["vector", "layer", "7"])
@over_vectors
@over_dtypes
def test_the_contraction_of_scaled_signs_is_one_over_the_block_or_more(name, dtype, blocks):
    vector = vector_of(name, dtype)
    spec = spec_of(len(vector))
    longest = max(block_lengths(blocks, len(vector), spec))
    assert 1 / longest <= ScaledSign(blocks=blocks).delta(vector, spec) <= 1


@over_inputs("seed", range(10))
def test_rounding_promises_a_nearly_constant_vector_no_more_than_everything(seed):
    vector = 1 - 1e-11 * random(26, seed=seed).abs()
    assert 1 - 1e-15 <= ScaledSign().delta(vector) <= 1


# The largest elements


@pytest.mark.parametrize("code", POSITION_CODES)
def test_the_largest_values_are_sent_as_they_are_and_nothing_else(code):
    vector = torch.tensor([1.0, -5.0, 4.0, 3.0, 9.0, -9.0, 0.5])
    packet = TopK(k=3, blocks="vector", code=code)(vector, offset=4)
    assert packet.dense().tolist() == [0.0, -5.0, 0.0, 0.0, 9.0, -9.0, 0.0]
    assert (packet.offset, packet.code, packet.paper_bits) == (4, code, 96)
    assert TopK(density=0.5)(vector, spec=ModelSpec.of_sizes(3, 4)).indices.tolist() == [1, 4, 5]


def test_the_largest_values_promise_the_share_of_the_poorest_block():
    vector = VECTORS["normal"]
    assert TopK(density=0.1, blocks="vector").delta(vector) == 25 / 257
    assert TopK(density=0.1).delta(vector, ModelSpec.of_sizes(200, 57)) == 5 / 57
    assert TopK(k=10).delta(vector, ModelSpec.of_sizes(200, 50, 7)) == 10 / 200
    assert TopK(density=0.01).paper_bits(ModelSpec.of_sizes(401408, 512, 5120, 10)) == 32 * 4071


def test_a_density_that_selects_nothing_of_the_full_vector_is_refused():
    with pytest.raises(ValueError, match=r"^top-k: density=0\.01 of d=20 is no element; make it at least 1/20"):
        TopK(blocks="vector")(VECTORS["constant"])
    assert TopK()(VECTORS["constant"], spec=ModelSpec.of_sizes(18, 2)).indices.tolist() == [0, 18]
