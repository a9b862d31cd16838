"""Tensors that are replaced or overwritten behind the optimizer's back."""

import pytest
import torch
from torch import nn

import laconic
from support import optimizers, small_model
from support.inputs import over_inputs

pytestmark = pytest.mark.usefixtures("group_of_one")


def assign(net: nn.Module) -> None:
    net.load_state_dict({name: value.clone() for name, value in net.state_dict().items()}, assign=True)


def tie_again(net: nn.Module) -> None:
    net[2].bias = nn.Parameter(torch.zeros(3))


def other_type(net: nn.Module) -> None:
    net.double()


def other_shape(net: nn.Module) -> None:
    net[2].bias.data = torch.zeros(4)


REPLACED = {
    "assign": (assign, "parameter '0.weight': the model has another tensor"),
    "tied again": (tie_again, "parameter '2.bias': the model has another tensor"),
    "another type": (other_type, "parameter '0.weight' was torch.float32 of shape (11, 6) on cpu"),
    "another shape": (other_shape, "parameter '2.bias' was torch.float32 of shape (3,) on cpu"),
}


@pytest.mark.parametrize("what", REPLACED)
@over_inputs("name", ("sgd", "ec-sgd", "sgd-server"))
def test_a_tensor_that_is_not_trained_any_more_is_refused_with_its_name(what, name):
    change, message = REPLACED[what]
    net = small_model.net()
    opt = optimizers.wrapped(net, name, "auto")
    optimizers.one_step(opt, net, 0, 0)
    change(net)
    small_model.loss(net, 0, 1).backward() if what != "another shape" else None
    with pytest.raises(RuntimeError) as caught:
        opt.step()
    assert message in str(caught.value)
    assert opt.traffic.rounds == 1


@pytest.mark.parametrize("name", ["sgd", "ec-sgd", "sgd-server", "sgd-model"])
def test_new_memory_and_values_however_written_are_taken_up_at_the_next_step(name):
    writes = {
        "in place": lambda parameter, value: parameter.copy_(value),
        "data": lambda parameter, value: setattr(parameter, "data", value.clone()),
        "data in place": lambda parameter, value: parameter.data.copy_(value),
    }
    ends = []
    for write in writes.values():
        net = small_model.net()
        opt = optimizers.wrapped(net, name, "auto")
        optimizers.one_step(opt, net, 0, 0)
        with torch.no_grad():
            for parameter in net.parameters():
                write(parameter, torch.full_like(parameter, 0.25))
        optimizers.one_step(opt, net, 0, 1)
        ends.append(small_model.values(net))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    assert (ends[0] - 0.25).abs().max() < 1  # not where the model was before


@pytest.mark.parametrize("name", ["sgd-server", "dsgd", "asgd"])
def test_weights_loaded_after_a_simulation_was_made_are_those_of_all_its_workers(name):
    ends = []
    for is_late in (False, True):
        net = small_model.net()
        weights = {key: value + 1 for key, value in net.state_dict().items()}
        if not is_late:
            net.load_state_dict(weights)
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        simulation = laconic.Simulation(net, inner, laconic.ALGORITHMS[name](), workers=3, compute_s=0.01)
        if is_late:
            net.load_state_dict(weights)
        for round_ in range(2):
            simulation.step(lambda rank, net=net, round_=round_: small_model.loss(net, rank, round_))
        ends.append(simulation.parameters_of(2))
    assert torch.equal(*ends)
