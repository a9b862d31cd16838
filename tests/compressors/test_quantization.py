"""The randomized compressors and clipping: worked examples, exact laws, wrong hyper-parameters."""

import pytest
import torch

from laconic.compressors import QSGD, Clipped, Natural, Quantized, Sparsified, Ternary
from laconic.contract import ModelSpec
from laconic.kernels.reference import hashing as reference_hashing
from laconic.kernels.reference import stochastic_rounding as reference_stochastic_rounding
from laconic.wire import Levels
from support.frame_bytes import KEY
from support.inputs import over_inputs

N = 40_000


def repeated(value, *others, n=N, dtype=torch.float64):
    """n times a value, and then others: one draw of n for the price of one call."""
    return torch.cat([torch.full((n,), value, dtype=dtype), torch.tensor(others, dtype=dtype)])


def normal(d, *, seed=1, dtype=torch.float64):
    return torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def share_of(sampled, value):
    return float(((sampled - value).abs() < 1e-12).double().mean())


def nearly(share, n=N):
    """Five standard errors of a share of n draws."""
    return pytest.approx(share, abs=5 * (share * (1 - share) / n) ** 0.5)


# Grid points between minimum and maximum


def test_two_bits_between_minus_half_and_one_point_three_by_hand():
    """Grid points -0.5, 0.1, 0.7 and 1.3: 0.3 becomes 0.1 with probability 2/3 and 0.7 with 1/3."""
    sampled = Quantized(bits=2)(repeated(0.3, -0.5, 1.3), key=KEY).dense()
    assert sampled[N:].tolist() == [-0.5, 1.3]
    assert sampled[:N].unique().tolist() == pytest.approx([0.1, 0.7], rel=1e-12)
    assert share_of(sampled[:N], 0.1) == nearly(2 / 3)


def test_a_value_on_the_grid_stays_there_whatever_is_sampled():
    vector = torch.arange(256.0).repeat(20)
    assert torch.equal(Quantized(bits=8)(vector, key=KEY).dense(), vector)
    assert Quantized(bits=1)(torch.tensor([2.0, -1.0, 2.0]), key=KEY).dense().tolist() == [2, -1, 2]
    assert Quantized(bits=3)(torch.full((7,), -0.3), key=KEY).dense().tolist() == torch.full((7,), -0.3).tolist()


@over_inputs("bits", [1, 2, 4, 8])
def test_the_variance_of_codes_is_the_one_on_paper_and_no_more_than_a_quarter_step_squared(bits):
    values = torch.linspace(-2, 3, 23, dtype=torch.float64) + 0.01 * normal(23)
    vector = values.repeat(N // 23)
    compressor = Quantized(bits=bits)
    errors = (compressor(vector, key=KEY).dense() - vector).view(-1, 23)
    exact = compressor.variances(values)
    step = float(values.max() - values.min()) / (2**bits - 1)
    assert bool((exact <= step**2 / 4).all())
    standard_error = (exact.sum() * step**2 / len(errors)).sqrt()  # the fourth power of an error is below its square
    assert float(errors.square().mean(0).sum()) == pytest.approx(float(exact.sum()), abs=5 * float(standard_error))
    assert bool((errors.mean(0).abs() <= 5 * (exact / len(errors)).sqrt() + 1e-12).all())


def test_blocks_have_ranges_of_their_own():
    vector = torch.tensor([0.0, 1.0, 10.0, 13.0, 13.0, -2.0])
    packet = Quantized(bits=1, blocks="layer")(vector, spec=ModelSpec.of_sizes(2, 3, 1), key=KEY)
    assert (packet.lows.tolist(), packet.highs.tolist()) == ([0, 10, -2], [1, 13, -2])
    assert torch.equal(packet.dense(), vector)
    assert tuple(Quantized(bits=1, blocks="4")(vector, key=KEY).lengths) == (4, 2)


def test_a_range_that_no_float_holds_still_has_its_grid_values():
    for dtype in (torch.float32, torch.float64):
        largest = torch.finfo(dtype).max
        vector = torch.tensor([largest, -largest, 0.0], dtype=dtype)
        codes = [Quantized(bits=8)(vector, key=key).codes.tolist() for key in range(30)]
        assert {tuple(each[:2]) for each in codes} == {(255, 0)}
        assert {each[2] for each in codes} == {127, 128}


@pytest.mark.parametrize(
    "compressor",
    [
        Quantized(bits=3),
        Quantized(bits=4, scaling="l2"),
        QSGD(blocks="vector"),
        Ternary(),
        Natural(),
        Sparsified(),
    ],
    ids=lambda compressor: compressor.name,
)
def test_draws_depend_on_the_coordinate_and_the_key_alone(compressor):
    vector = repeated(0.3, -1.0, 2.0, n=998)
    turned = vector.flip(0)  # the same values at other coordinates, so the same scales
    one, same, moved, other = (
        compressor(vector, key=KEY, offset=5),
        compressor(vector, key=KEY, offset=5),
        compressor(vector, key=KEY, offset=6),
        compressor(vector, key=KEY + 1, offset=5),
    )
    assert torch.equal(one.dense(), same.dense())
    assert torch.equal(one.dense()[3:500], compressor(vector, key=KEY, offset=4).dense()[4:501])
    assert torch.equal(one.dense()[2:996], compressor(turned, key=KEY, offset=5).dense()[2:996])
    assert not torch.equal(one.dense(), moved.dense())
    assert not torch.equal(one.dense(), other.dense())


def test_uniforms_are_hashes_over_two_to_the_thirty_two():
    sampled = reference_stochastic_rounding.uniforms(3, 1000, KEY)
    hashes = [word % 2**32 for word in reference_hashing.hash32(3, 1000, KEY).tolist()]
    assert sampled.tolist() == [word / 2**32 for word in hashes]


# Levels of a scale


def test_levels_are_parts_of_the_norm():
    vector = torch.tensor([3.0, -4.0], dtype=torch.float64)
    packet = QSGD(levels=5)(vector, key=KEY)
    assert packet.scales.tolist() == [5.0]
    assert packet.levels.tolist() == [3, -4]
    assert packet.dense().tolist() == [3, -4]
    sampled = QSGD(levels=1, blocks="vector")(repeated(0.6, 0.8 * N**0.5, n=N), key=KEY)
    assert share_of(sampled.levels[:N].double(), 1) == nearly(0.6 / float(sampled.scales))


@over_inputs("bits", range(2, 9))
def test_quantizing_by_the_norm_is_qsgd_with_a_sign_and_what_is_left_of_the_bits(bits):
    vector = normal(300)
    packet = Quantized(bits=bits, scaling="l2")(vector, key=KEY)
    assert isinstance(packet, Levels)
    qsgd = QSGD(levels=2 ** (bits - 1) - 1, blocks="vector")(vector, key=KEY)
    assert torch.equal(packet.levels, qsgd.levels)
    assert (
        packet.payload_bits
        == bits * 300 + 32 + 32
        == Quantized(bits=bits, scaling="l2").paper_bits(ModelSpec.of_sizes(300)) + 32
    )


@over_inputs("factor", [1e-300, 1.0, 1e300])
def test_a_norm_neither_overflows_nor_vanishes_and_covers_every_value(factor):
    packet = QSGD(levels=7)(factor * torch.tensor([3.0, 0.0, -4.0], dtype=torch.float64), key=KEY)
    assert float(packet.scales) == pytest.approx(5 * factor, rel=1e-15)
    assert QSGD(levels=7)(torch.tensor([0.0, -1.1]), key=KEY).dense().tolist() == torch.tensor([0, -1.1]).tolist()


def test_qsgds_variance_is_within_the_papers_bound():
    vector = normal(512)
    for steps in (1, 4, 16, 64, 255):
        total = float(QSGD(levels=steps).variances(vector).sum())
        assert 0 < total <= min(512 / steps**2, 512**0.5 / steps) * float(vector.square().sum())


def test_ternary_is_a_sign_times_the_largest_magnitude():
    sampled = Ternary()(repeated(-0.3, 1.2), key=KEY)
    assert sampled.scales.tolist() == [1.2]
    assert sampled.levels.unique().tolist() == [-1, 0, 1]
    assert share_of(sampled.dense()[:N], -1.2) == nearly(0.25)
    assert share_of(sampled.dense()[:N], 0.0) == nearly(0.75)
    assert sampled.dense()[N] == 1.2
    assert Ternary()(torch.ones(100), key=KEY).payload_bits == 232 == Ternary().paper_bits(ModelSpec.of_sizes(100))


def test_the_entropy_code_takes_fewer_bits_where_levels_are_uneven():
    vector = normal(1 << 16)
    for compressor, less in ((QSGD(), 0.6), (Ternary(), 0.65), (Quantized(), 0.95)):
        coded = type(compressor)(entropy=True)(vector, key=KEY)
        plainly = compressor(vector, key=KEY)
        assert torch.equal(coded.dense(), plainly.dense())
        assert coded.payload_bits < less * plainly.payload_bits


# Powers of two, short mantissas, kept values


def test_natural_compression_goes_to_a_power_of_two_next_to_the_value():
    sampled = Natural()(repeated(-2.5), key=KEY).dense()
    assert sampled.unique().tolist() == [-4, -2]
    assert share_of(sampled, -4.0) == nearly(0.25)
    unchanged = torch.tensor([1.0, -0.5, 0.0, -0.0, 2.0**-126, 2.0**127])
    assert torch.equal(Natural()(unchanged, key=KEY).dense(), unchanged)
    assert Natural()(torch.ones(10), key=KEY).payload_bits == 90


def test_natural_compression_adds_no_more_than_an_eighth():
    for dtype in (torch.float32, torch.float64):
        vector = normal(5000, dtype=dtype)
        share = Natural().variances(vector) / vector.double().square()
        assert 0.12 < float(share.max()) <= 0.125 + 1e-15


def test_the_smallest_and_the_largest_numbers_have_powers_of_two_too():
    for dtype, bits in ((torch.float32, 127), (torch.float64, 1023)):
        tiny = torch.finfo(dtype).tiny
        small = Natural()(repeated(0.25 * tiny, dtype=dtype), key=KEY).dense()
        assert small.unique().tolist() == [0, tiny]
        assert share_of(small / tiny, 1.0) == nearly(0.25)
        assert float(Natural().variances(small[:1] * 0 + 0.25 * tiny)) == pytest.approx((0.25 * 0.75) * tiny * tiny)
        largest = torch.tensor([torch.finfo(dtype).max, -torch.finfo(dtype).max], dtype=dtype)
        assert Natural()(largest, key=KEY).dense().tolist() == [2.0**bits, -(2.0**bits)]
        assert not Natural()(torch.tensor([float("nan"), 1.0], dtype=dtype), key=KEY).finite
        assert not Natural()(torch.tensor([float("inf"), 1.0], dtype=dtype), key=KEY).finite


@pytest.mark.slow
@over_inputs("mantissa_bits", [0, 1, 7, 22])
def test_clipping_clears_what_is_behind_its_bits(mantissa_bits):
    vector = normal(1000, dtype=torch.float32)
    packet = Clipped(mantissa_bits=mantissa_bits)(vector)
    exponent = torch.exp2(vector.abs().log2().floor())
    step = exponent * 2.0**-mantissa_bits
    assert torch.equal(packet.dense(), (vector.abs() / step).floor() * step * vector.sign())
    assert packet.payload_bits == (9 + mantissa_bits) * 1000
    lost = float((1 - packet.dense() / vector).max())
    assert lost < 1 / (2**mantissa_bits + 1)


def test_clipping_promises_nothing_about_numbers_without_a_leading_one():
    assert Clipped(mantissa_bits=1).delta(torch.tensor([1.0, 0.0])) == 1 - 1 / 9
    assert Clipped(mantissa_bits=1).delta(torch.tensor([1.0, 1e-40])) is None
    assert Clipped(mantissa_bits=1).delta(torch.tensor([1.0, 1e-40], dtype=torch.float64)) == 1 - 1 / 9


def test_sparsifying_sends_z_over_p_with_probability_p():
    vector = repeated(0.3)
    packet = Sparsified(keep=0.25)(vector, key=KEY)
    assert packet.dense().unique().tolist() == [0, 1.2]
    assert share_of(packet.dense(), 0.0) == nearly(0.75)
    assert torch.equal(packet.mask, reference_hashing.keep_mask(0, N, KEY, 1 << 30))
    assert float(Sparsified(keep=0.25).variances(vector).sum()) == pytest.approx(3 * float(vector.square().sum()))
    assert packet.payload_bits == 64 * int(packet.mask.sum())
    assert Sparsified(keep=0.25)(vector.float(), key=KEY).payload_bits == 32 * int(packet.mask.sum())


# Wrong hyper-parameters


@over_inputs("bits", [0, -1, 9, 32])
def test_bits_outside_one_to_eight_are_named(bits):
    with pytest.raises(ValueError, match=rf"^quantized: bits={bits} must be in \[1, 8\] \(bits\); the default is 8$"):
        Quantized(bits=bits)


def test_one_bit_of_the_norm_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"bits=1 with scaling='l2' .* must be in 2 \.\. 8, .* scaled-sign"):
        Quantized(bits=1, scaling="l2")


@over_inputs(
    ("make", "message"),
    [
        (lambda: QSGD(levels=0), r"^qsgd: levels=0 must be in \[1, 255\]"),
        (lambda: QSGD(levels=256), r"^qsgd: levels=256 must be in \[1, 255\]"),
        (lambda: Sparsified(keep=0.0), r"^sparsified: keep=0\.0 must be in \(0, 1\]"),
        (lambda: Sparsified(keep=1.5), r"^sparsified: keep=1\.5 must be in \(0, 1\]"),
        (lambda: Clipped(mantissa_bits=23), r"^clipped: mantissa_bits=23 must be in \[0, 22\]"),
        (lambda: Quantized(scaling="l1"), "^quantized: scaling='l1' must be one of min-max, l2"),
        (lambda: Quantized(blocks="0"), '^quantized: blocks=\'0\' must be "vector", "layer" or a whole number'),
        (lambda: QSGD(blocks="row"), "^qsgd: blocks='row' must be"),
        (lambda: Ternary(blocks=""), "^ternary: blocks='' must be"),
    ],
)
def test_a_hyperparameter_outside_its_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_of_the_wrong_kind_is_named():
    with pytest.raises(TypeError, match=r"^quantized: bits=2\.5 must be a whole number"):
        Quantized(bits=2.5)
    with pytest.raises(TypeError, match=r"^ternary: entropy='yes' must be True or False"):
        Ternary(entropy="yes")
