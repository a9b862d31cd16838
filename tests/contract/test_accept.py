"""What an exchange accepts: every compressor's own packets, and those of no other settings."""

import pytest
import torch

from laconic.compressors import (
    COMPRESSORS,
    QSGD,
    Clipped,
    DenseValues,
    Fractional,
    Quantized,
    ScaledSign,
    Sign,
    Sparsified,
    Ternary,
    TopK,
    dense,
)
from laconic.contract import Accept, Exchange, ModelSpec
from laconic.protocol.expectation import Expectation
from laconic.random_keys import make_key
from laconic.wire import Dense, Positions, Signs, Sparse, VoteChange
from support.inputs import over_inputs

SPEC = ModelSpec.of_sizes(20, 1, 16)
ORIGIN = (5, "worker", 2, 7)
KEY = make_key(*ORIGIN, "compress")
OTHERS = (
    DenseValues(value_type="bfloat16"), Sign(keep=0.4), ScaledSign(blocks="8"), ScaledSign(blocks="vector"),
    Fractional(bits=3), TopK(density=0.5), TopK(density=0.25, code="list"), Quantized(bits=4),
    Quantized(bits=4, entropy=True), Quantized(bits=5, scaling="l2"), Quantized(blocks="8"), QSGD(levels=3, blocks="9"),
    QSGD(entropy=True), Ternary(blocks="vector"), Clipped(mantissa_bits=2), Sparsified(keep=0.5),
)  # fmt: skip
ALL = [kind(**({"density": 0.25} if name == "top-k" else {})) for name, kind in COMPRESSORS.items()] + [*OTHERS]


def expectation_of(accepted, dtype=torch.float32, *, is_split=False):
    return Expectation(accepted, dtype, is_split=is_split)


def holds(expectation, packet, *, offset=0, count=SPEC.d):
    return expectation.holds(packet, ORIGIN, (offset, count))


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("compressor", ALL)
def test_a_compressor_accepts_its_own_packets_and_those_of_no_other(compressor, dtype):
    vector = torch.linspace(-2, 3, SPEC.d, dtype=dtype) ** 3
    expectation = expectation_of(compressor.accept(SPEC), dtype)
    assert holds(expectation, compressor(vector, spec=SPEC, key=KEY))
    alike = {"identity", "dense"}  # in float32 they send the same
    for other in ALL:
        if other is not compressor and not {other.name, compressor.name} <= alike:
            assert not holds(expectation, other(vector, spec=SPEC, key=KEY)), other


@pytest.mark.parametrize("kind", [Sign, Sparsified], ids=lambda kind: kind.name)
def test_a_key_must_be_the_senders_of_this_round_and_stream(kind):
    compressor, vector = kind(keep=0.5), torch.ones(SPEC.d)
    expectation = expectation_of(compressor.accept(SPEC, "mask"))
    assert holds(expectation, compressor(vector, key=make_key(*ORIGIN, "mask")))
    for wrong in ((6, "worker", 2, 7), (5, "server", 2, 7), (5, "worker", 1, 7), (5, "worker", 2, 6)):
        assert not holds(expectation, compressor(vector, key=make_key(*wrong, "mask")))
    assert not holds(expectation, compressor(vector, key=KEY))
    forwarded = expectation_of(compressor.accept(SPEC, "mask").forwarded(1))
    assert holds(forwarded, compressor(vector, key=make_key(5, "worker", 1, 7, "mask")))


def test_an_exchange_that_says_nothing_accepts_dense_values_of_its_coordinates_and_of_the_models_type():
    expectation = expectation_of(Exchange(count=4).up)
    assert holds(expectation, dense(torch.ones(4)), count=4)
    wrong = (dense(torch.ones(3)), dense(torch.ones(4), offset=1), dense(torch.ones(4).double()), None)
    assert not any(holds(expectation, packet, count=4) for packet in wrong)


def test_a_skip_is_accepted_only_where_it_is_named():
    signs, values = Accept(Signs, key=0), Accept(Dense)
    assert holds(expectation_of((values, None)), None)
    assert holds(expectation_of(None), None)
    assert not holds(expectation_of((values, signs)), None)
    assert not holds(expectation_of(None), dense(torch.ones(SPEC.d)))


def test_a_range_holds_each_of_its_numbers_and_a_slice_any_part_of_the_selection():
    def positions(n):
        return Positions(indices=torch.arange(n), count=SPEC.d)

    def held(accept, **options):
        return [n for n in range(6) if holds(expectation_of(accept, **options), positions(n))]

    assert held(Accept(Positions, n_selected=range(2, 5))) == [2, 3, 4]
    assert held(Accept(Positions, n_selected=3)) == [3]
    assert held(Accept(Positions, n_selected=3), is_split=True) == [0, 1, 2, 3]


def test_a_nested_packet_has_settings_of_its_own():
    def sparse(values):
        return Sparse(indices=torch.arange(values.count), values=values, count=SPEC.d)

    expectation = expectation_of(Accept(Sparse, values=Fractional(bits=3).accept(SPEC)))
    vector = torch.arange(1.0, 5)
    assert holds(expectation, sparse(Fractional(bits=3)(vector)))
    assert holds(expectation, sparse(dense(vector[:0]))), "no value has no bits"
    for values in (dense(vector), Fractional(bits=4)(vector), Fractional(bits=3)(vector.double())):
        assert not holds(expectation, sparse(values))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"treshold": 1}, "signs has no 'treshold'; did you mean threshold"), ({"steps": 3}, "signs has no 'steps'")],
)
def test_a_setting_that_the_kind_does_not_have_is_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        Accept(Signs, **settings)


def test_a_stream_of_a_kind_without_a_key_is_refused_at_once():
    with pytest.raises(ValueError, match="vote change has no 'key'"):
        Accept(VoteChange, stream="mask")
