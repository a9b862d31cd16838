"""A server's step along a mean in one pass over the packets: the bits of the mean and a step, or no such step."""

import math

import torch

from laconic.algorithms.sgd_server import GlobalReplica
from laconic.training.active_parameters import ActiveParameters
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.server_model import ServerModel

SHAPES = [(20, 30), (), (700,)]
D = 1301


def model_of(options, *, lr="kept", clipping=None, active=(True, True, True)):
    random = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
    groups = [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "lr": 0.03}]
    inner = torch.optim.SGD(groups, **{"lr": 0.1, **options})
    chosen = ActiveParameters(FlatParameters(inner).sizes)
    chosen.select(active)
    return ServerModel(inner, chosen, LearningRates(inner, GlobalReplica(), lr), clipping, lends=True)


def gradients(n, scale=1.0):
    random = torch.Generator().manual_seed(n)
    return [scale * torch.randn(D, generator=random) for _ in range(n)]


def largest_of(vectors):
    return max(float(vector.abs().max()) for vector in vectors)


def test_a_step_in_one_pass_has_the_bits_of_a_mean_and_a_step_and_a_bound_on_the_model():
    for n in (1, 2, 3, 5):
        one, other = model_of({}), model_of({})
        for _ in range(3):
            vectors = gradients(n)
            packet = one.one_pass.along_mean(vectors, largest_of(vectors))
            total = torch.zeros(D)
            for vector in vectors:
                total = total + vector
            expected = other.descend(total / n)
            assert torch.equal(packet.values, expected), n
            assert float(expected.abs().max()) <= packet.absolute_maximum < 10
        assert [group["lr"] for group in one.saved()["optimizer"]["param_groups"]] == [0.1, 0.03]


def test_weights_that_are_taken_count_in_the_bound():
    model = model_of({})
    vectors = gradients(2)
    model.one_pass.along_mean(vectors, largest_of(vectors))
    model.take(torch.full((D,), 1000.0))
    packet = model.one_pass.along_mean(vectors, largest_of(vectors))
    assert 999 < float(packet.values.abs().max()) <= packet.absolute_maximum < 1001


def test_other_steps_than_those_of_plain_sgd_with_numbers_of_usual_size_are_taken_as_before():
    for name, model in {
        "momentum": model_of({"momentum": 0.9}),
        "decay": model_of({"weight_decay": 0.1}),
        "fused": model_of({"fused": True}),
        "inactive": model_of({}, active=(True, False, True)),
    }.items():
        assert not model.one_pass.are_taken(), name
        assert model.one_pass.along_mean(gradients(2), 5.0) is None, name
    large = model_of({})
    before = large.shared_vector.clone()
    for largest in (1e30, math.inf, math.nan):
        assert large.one_pass.along_mean(gradients(2), largest) is None, largest
    assert torch.equal(large.shared_vector, before)
    large.take(torch.full((D,), 1e30))
    assert large.one_pass.along_mean(gradients(2), 5.0) is None
