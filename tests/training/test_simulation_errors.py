"""An exception in one worker's loss leaves a simulation that can be saved, and that goes on as if nothing had been."""

import pytest
import torch

import laconic
from support import methods, small_model

METHODS = ("sgd", "ec-sgd", "sgd-server", "dsgd")


def simulated(name, **settings):
    net = small_model.net()
    algorithm = methods.with_test_settings(name)
    inner = torch.optim.SGD(net.parameters(), lr=0.05)
    return laconic.Simulation(net, inner, algorithm, workers=3, seed=5, **settings)


def step(simulation, round_, failing=None):
    def loss_of(rank):
        if rank == failing:
            raise KeyboardInterrupt
        return small_model.loss(simulation.model, rank, round_)

    simulation.step(loss_of)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_that_an_exception_ended_can_be_taken_again(name):
    one, other = simulated(name), simulated(name)
    for round_ in range(5):
        if round_ == 3:
            with pytest.raises(KeyboardInterrupt):
                step(one, round_, failing=1)
            one.state_dict()
        step(one, round_)
        step(other, round_)
    assert torch.equal(small_model.values(one.model), small_model.values(other.model))
    assert one.traffic.as_data() == other.traffic.as_data()


@pytest.mark.parametrize("taken", [1, 2])
def test_local_steps_since_the_last_exchange_are_undone(taken):
    simulation = simulated("ssgd-mv", local_steps=3)
    for round_ in range(3):
        step(simulation, round_)
    before = small_model.values(simulation.model)
    for round_ in range(taken):
        step(simulation, 3 + round_)
    with pytest.raises(KeyboardInterrupt):
        step(simulation, 3 + taken, failing=1)
    assert torch.equal(small_model.values(simulation.model), before)
    assert simulation.state_dict()["laconic"]["training"]["steps_taken"] == 0


def test_an_asynchronous_worker_computes_its_gradient_again():
    simulation = simulated("asgd", compute_s=0.5)
    step(simulation, 0)
    with pytest.raises(KeyboardInterrupt):
        step(simulation, 1, failing=1)
    simulation.state_dict()
    for round_ in range(1, 4):
        step(simulation, round_)
    assert [simulation.traffic_of(rank).rounds for rank in range(3)] == [4] * 3
    assert sum(simulation.traffic.staleness.values()) >= 12


@pytest.mark.parametrize("options", [{}, {"side_by_side": 2}], ids=["one after the other", "side by side"])
@pytest.mark.parametrize(
    ("loss_of", "message"),
    [
        (lambda net, rank: None, r"loss_of\(0\) returned NoneType.*a function without `return` returns None"),
        (lambda net, rank: small_model.loss(net, rank, 0).item(), r"loss_of\(0\) returned float.*leave out \.item\(\)"),
    ],
    ids=["nothing", "a number"],
)
def test_a_loss_that_is_no_tensor_is_named_with_advice_and_the_step_can_be_taken_again(loss_of, message, options):
    simulation = simulated("ec-sgd", **options)
    step(simulation, 0)
    with pytest.raises(TypeError, match=message):
        simulation.step(lambda rank: loss_of(simulation.model, rank))
    step(simulation, 1)
    assert simulation.traffic.rounds == 2


@pytest.mark.parametrize("name", METHODS)
def test_losses_of_another_model_are_no_round_as_over_processes(name):
    simulation, other = simulated(name), small_model.net()
    with pytest.raises(RuntimeError, match="worker 0 gives no parameter one; loss_of must compute it with the simul"):
        simulation.step(lambda rank: small_model.loss(other, rank, 0))
    assert simulation.traffic.rounds == 0
    step(simulation, 0)


def test_what_is_no_function_and_a_rank_that_is_not_there_are_named():
    simulation = simulated("sgd")
    with pytest.raises(TypeError, match="loss_of=Tensor must be a function"):
        simulation.step(small_model.loss(simulation.model, 0, 0))
    for rank in (-1, 3):
        for ask in (simulation.parameters_of, simulation.traffic_of):
            with pytest.raises(ValueError, match=rf"rank={rank} must be within 0 \.\. 2, one of the 3 workers"):
                ask(rank)
