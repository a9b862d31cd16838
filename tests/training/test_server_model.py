"""The server's own model: what a step returns is a copy, or its own memory where the driver has sent it by the next."""

import pytest
import torch

from laconic.algorithms.sgd_server import GlobalReplica
from laconic.training.active_parameters import ActiveParameters
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.replaced_tensors import HeldModel
from laconic.training.server_model import ServerModel


def model_of(dtype=torch.float32, *, lends=True):
    parameters = [torch.nn.Parameter(torch.ones(2, 3, dtype=dtype)), torch.nn.Parameter(torch.ones((), dtype=dtype))]
    inner = torch.optim.SGD(parameters, lr=0.5, momentum=0.5)
    flat = FlatParameters(inner)
    active = ActiveParameters(flat.sizes)
    active.select([True, True])
    return flat, ServerModel(inner, active, LearningRates(inner, GlobalReplica()), None, lends=lends)


def test_a_model_that_lends_returns_its_own_memory_and_another_one_a_copy():
    for lends in (True, False):
        _, model = model_of(lends=lends)
        one = model.descend(torch.full((7,), 2.0))
        assert torch.equal(one, torch.zeros(7))
        other = model.descend(torch.full((7,), 2.0))
        assert torch.equal(other, torch.full((7,), -1.5))  # with momentum
        assert (one is other) == lends
        assert torch.equal(one, other if lends else torch.zeros(7))


def test_a_model_of_a_shorter_type_lends_nothing():
    _, model = model_of(torch.bfloat16)
    assert model.own_vector() is None
    assert torch.equal(model.descend(torch.full((7,), 2.0)), torch.zeros(7))


def test_saved_values_and_weights_that_are_taken_are_copies_of_a_model_that_lends():
    _, model = model_of()
    saved, values = model.saved(), torch.full((7,), 3.0)
    model.take(values)
    model.descend(torch.full((7,), 2.0))
    assert torch.equal(saved["values"], torch.ones(7))
    assert torch.equal(values, torch.full((7,), 3.0))
    assert torch.equal(model.own_vector(), torch.full((7,), 2.0))
    model.restore(saved)
    assert torch.equal(model.own_vector(), torch.ones(7))


@pytest.mark.parametrize("lends", [True, False])
def test_loaded_weights_are_taken_up_and_those_of_a_step_are_not(lends):
    flat, model = model_of(lends=lends)
    taken = []
    held = HeldModel(flat, type("Copy", (), {"take": lambda _, values: taken.append(values)})(), equal=model.own_vector)
    held.take_up()
    flat.set_values(model.descend(torch.full((7,), 2.0)))  # as a worker applies the answer
    held.end_step()
    held.take_up()
    assert not taken
    with torch.no_grad():
        flat.parameters[0][1, 2] = 9.0
    held.take_up()
    assert [values.tolist() for values in taken] == [[0.0] * 5 + [9.0, 0.0]]
    held.forget()
    held.take_up()
    assert len(taken) == 1
