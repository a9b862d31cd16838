"""The learning rate: 0 is legal, a method's factor is stated or applied, and what is none is refused."""

import pytest
import torch

import laconic
from laconic.training.flat_parameters import FlatParameters
from support import methods, small_model
from support.inputs import each_over, over_inputs

LAYOUTS = methods.in_step_with_layouts(2)
STAYING = [(name, layout) for name, layout in LAYOUTS if laconic.ALGORITHMS[name].replicas_equal]
TAKING = [name for name in methods.IN_STEP if laconic.ALGORITHMS[name].takes_changes]
READING = [name for name in methods.IN_STEP if laconic.ALGORITHMS[name].reads_lr]


def simulated(net, algorithm, inner=None, workers=2, **settings):
    inner = inner or torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    return laconic.Simulation(net, inner, algorithm, workers=workers, seed=5, **settings)


def take(simulation, steps, before_step=lambda step: None):
    for step in steps:
        before_step(step)
        simulation.step(lambda rank, step=step: small_model.loss(simulation.model, rank, step))
    return small_model.values(simulation.model)


def memories_of(simulation):
    sides = [worker.me for worker in simulation.driver.workers] + [server.view for server in simulation.driver.servers]
    return [side.memory.saved() for side in sides]


def set_lr(simulation, lr):
    for group in simulation.inner.param_groups:
        group["lr"] = lr


@pytest.mark.slow
@each_over(("name", "layout"), STAYING)
def test_a_step_of_learning_rate_zero_moves_nothing_keeps_every_memory_and_training_goes_on(name, layout):
    algorithm, net = methods.with_test_settings(name), small_model.net()
    simulation = simulated(net, algorithm, layout=layout)
    set_lr(simulation, 0.0)
    start = small_model.values(net)
    assert torch.equal(take(simulation, range(2)), start)
    set_lr(simulation, algorithm.test_lr)
    moved = take(simulation, range(2, 6))
    assert not torch.equal(moved, start)
    memories = memories_of(simulation)
    set_lr(simulation, 0.0)
    assert torch.equal(take(simulation, range(6, 8)), moved)
    torch.testing.assert_close(memories_of(simulation), memories, rtol=0, atol=0)
    set_lr(simulation, algorithm.test_lr)
    end = take(simulation, range(8, 12))
    assert not torch.equal(end, moved)
    assert torch.isfinite(end).all()
    assert (simulation.traffic_of(0).rounds, simulation.traffic_of(0).aborted_rounds) == (12, 0)


@pytest.mark.parametrize("name", ["asgd", "dsgd"])
def test_where_workers_differ_a_step_of_learning_rate_zero_is_legal_too(name):
    net = small_model.net()
    compute = {"compute_s": 0.01} if name == "asgd" else {}
    simulation = simulated(net, methods.with_test_settings(name), **compute)
    start = small_model.values(net)
    set_lr(simulation, 0.0)
    assert torch.equal(take(simulation, range(2)), start)
    set_lr(simulation, 0.1)
    assert not torch.equal(take(simulation, range(2, 4)), start)


@pytest.mark.parametrize("name", TAKING)
def test_local_steps_of_learning_rate_zero_move_nothing_and_those_before_one_are_not_lost(name):
    algorithm, net = methods.with_test_settings(name), small_model.net()
    simulation = simulated(net, algorithm, torch.optim.SGD(net.parameters(), lr=0.0), local_steps=3)
    start = small_model.values(net)
    if algorithm.replicas_equal:
        assert torch.equal(take(simulation, range(3)), start)
    moved = take(simulation, range(3, 6), lambda step: set_lr(simulation, algorithm.test_lr if step == 3 else 0.0))
    assert not torch.equal(moved, start)
    set_lr(simulation, algorithm.test_lr)
    end = take(simulation, range(6, 9))
    assert torch.isfinite(end).all()
    assert not torch.equal(end, moved)


def test_the_change_of_local_steps_whose_last_learning_rate_is_zero_is_applied_in_full():
    ends = []
    for name in ("sgd", "sgd-model"):
        net = small_model.net().double()
        simulation = simulated(net, methods.with_test_settings(name), torch.optim.SGD(net.parameters()), local_steps=3)
        lrs = (0.2, 0.1, 0.0)
        ends.append(take(simulation, range(3), lambda step, of=simulation, lrs=lrs: set_lr(of, lrs[step])))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", READING)
@over_inputs("attached", ("before", "after"))
def test_a_warm_up_from_zero_is_the_same_training_whenever_its_lr_schedule_was_attached(name, attached):
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)

    def lr_schedule():
        return torch.optim.lr_scheduler.LambdaLR(inner, lambda step: min(1.0, step / 3))

    scheduler = lr_schedule() if attached == "before" else None
    simulation = simulated(net, methods.with_test_settings(name), inner)
    scheduler = scheduler or lr_schedule()
    start, values = small_model.values(net), []
    for step in range(6):
        values.append(take(simulation, [step]))
        scheduler.step()
    assert torch.equal(values[0], start)
    assert not torch.equal(values[1], start)
    assert torch.isfinite(values[-1]).all()
    by_hand = small_model.net()
    other = simulated(by_hand, methods.with_test_settings(name), torch.optim.SGD(by_hand.parameters(), lr=0.1))
    end = take(other, range(6), lambda step: set_lr(other, 0.1 * min(1.0, step / 3)))
    assert torch.equal(end, values[-1])


@pytest.mark.parametrize("name", [*READING, "sgd", "compskip", "ssgd-mv"])
@over_inputs("still", (0, 1))
@over_inputs("local_steps", (1, 2))
def test_a_group_whose_learning_rate_is_always_zero_stays_and_the_other_one_moves(name, still, local_steps):
    algorithm, net = methods.with_test_settings(name), small_model.net()
    if local_steps > 1 and not algorithm.takes_changes:
        return
    groups = [{"params": list(net[layer].parameters()), "lr": 0.1} for layer in (0, 2)]
    groups[still]["lr"] = 0.0
    start = [small_model.values(net[layer]) for layer in (0, 2)]
    simulation = simulated(net, algorithm, torch.optim.SGD(groups), local_steps=local_steps)
    end = take(simulation, range(8))
    assert torch.isfinite(end).all()
    assert torch.equal(small_model.values(net[2 * still]), start[still])
    assert not torch.equal(small_model.values(net[2 - 2 * still]), start[1 - still])


def test_residual_at_learning_rate_zero_waits_in_the_unit_of_the_parameters():
    """dist-ef rescales its residual by the ratio of two rates; one of 0 between them counts as if it had not been."""
    ends = []
    for lrs in ((0.1, 0.0, 0.05), (0.1, 0.05)):
        net = small_model.net()
        simulation = simulated(net, laconic.DistEFBlockwise(), torch.optim.SGD(net.parameters(), lr=0.1))
        for number, lr in enumerate(lrs):
            set_lr(simulation, lr)
            batch = 0 if number == 0 else 1
            simulation.step(lambda rank, net=net, batch=batch: small_model.loss(net, rank, batch))
        ends.append(small_model.values(net))
    torch.testing.assert_close(*ends)


@over_inputs("lr", (-0.1, float("nan"), float("inf")))
@pytest.mark.parametrize("name", ["sgd", "sparse", "ssgd-mv", "sgd-server"])
@over_inputs("local_steps", (1, 2))
def test_a_learning_rate_that_is_none_is_refused_before_anything_moves(lr, name, local_steps):
    algorithm, net = methods.with_test_settings(name), small_model.net()
    if local_steps > 1 and not algorithm.takes_changes:
        return
    simulation = simulated(net, algorithm, local_steps=local_steps)
    start = small_model.values(net)
    set_lr(simulation, lr)
    with pytest.raises(ValueError, match=r"of parameter group 0 must be a finite number of at least 0"):
        take(simulation, [0])
    assert torch.equal(small_model.values(net), start)


def test_learning_rates_may_be_tensors():
    ends = []
    for lr in (0.1, torch.tensor(0.1)):
        net = small_model.net()
        inner = torch.optim.SGD(net.parameters(), lr=lr)
        ends.append(take(simulated(net, laconic.SignSGDMajorityVote(), inner, lr="scaled"), range(3)))
        assert float(inner.param_groups[0]["lr"]) == pytest.approx(0.1)
    torch.testing.assert_close(*ends)


# The method's factor.


def test_the_factor_of_a_sign_method_is_stated_once_with_the_learning_rate_that_it_makes(stated):
    for _ in range(2):
        simulated(small_model.net(), laconic.SignSGDMajorityVote())
    assert len(stated.messages) == 1
    for part in ("signsgd-mv", "learning rate 0.1 is kept", "0.01 times", 'lr="scaled" makes it 0.001', 'lr="kept"'):
        assert part in stated.text


def test_nothing_is_stated_where_there_is_nothing_to_choose_or_the_user_has_chosen(stated):
    simulated(small_model.net(), laconic.SGD())
    for choice in ("kept", "scaled"):
        simulated(small_model.net(), laconic.CompSkip(), lr=choice)
    net = small_model.net()
    simulated(net, laconic.SignSGDMajorityVote(), torch.optim.AdamW(net.parameters()))
    assert stated.messages == []


@pytest.mark.parametrize("name", ["signsgd-mv", "dist-ef", "compskip", "dropsign"])
@over_inputs("local_steps", (1, 2))
def test_a_scaled_learning_rate_is_scaled_at_every_use_and_under_every_lr_schedule(name, local_steps):
    algorithm, ends = methods.with_test_settings(name), []
    for choice, lr in (("scaled", 0.1), ("kept", 0.1 * algorithm.lr_factor)):
        net = small_model.net().double()
        inner = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.5, weight_decay=0.1)
        lr_schedules = [torch.optim.lr_scheduler.ExponentialLR(inner, 0.7)]
        simulation = simulated(net, algorithm, inner, lr=choice, local_steps=local_steps)
        lr_schedules.append(torch.optim.lr_scheduler.LambdaLR(inner, lambda step: min(1.0, step / 3)))
        for step in range(6):
            take(simulation, [step])
            for lr_schedule in lr_schedules:
                lr_schedule.step()
        ends.append(small_model.values(net))
        ends.append(torch.tensor(inner.param_groups[0]["lr"]) / lr)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-10, atol=1e-12)
    assert ends[1] == pytest.approx(ends[3])


def test_a_scaled_learning_rate_is_applied_by_an_asynchronous_server():
    ends = []
    for choice, lr in (("scaled", 0.6), ("kept", 0.1)):
        net = small_model.net().double()
        inner = torch.optim.SGD(net.parameters(), lr=lr)
        simulation = simulated(net, laconic.ASGD(max_staleness=2), inner, lr=choice, compute_s=0.01)
        ends.append(take(simulation, range(3)))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_a_resumed_run_is_not_scaled_twice():
    ends = []
    for resumes in (False, True):
        net = small_model.net()
        simulation = simulated(net, laconic.DistEFBlockwise(), lr="scaled")
        take(simulation, range(3))
        if resumes:
            state, values = simulation.state_dict(), small_model.values(net)
            assert state["param_groups"][0]["lr"] == 0.1
            net = small_model.net()
            simulation = simulated(net, laconic.DistEFBlockwise(), lr="scaled")
            simulation.load_state_dict(state)
            FlatParameters(simulation.inner).set_values(values)
        ends.append(take(simulation, range(3, 6)))
    assert torch.equal(*ends)


def test_a_hook_that_sets_the_learning_rate_in_a_step_is_not_undone():
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    inner.register_step_post_hook(lambda optimizer, *_: optimizer.param_groups[0].update(lr=0.05))
    take(simulated(net, laconic.SignSGDMajorityVote(), inner, lr="scaled"), range(1))
    assert inner.param_groups[0]["lr"] == 0.05


def test_another_choice_and_a_factor_for_an_optimizer_that_normalizes_are_refused():
    with pytest.raises(ValueError, match=r"lr=0.1 must be \"kept\" or \"scaled\""):
        simulated(small_model.net(), laconic.SGD(), lr=0.1)
    net = small_model.net()
    with pytest.raises(ValueError, match=r"signsgd-mv's lr_factor is for plain SGD, and Adam divides"):
        simulated(net, laconic.SignSGDMajorityVote(), torch.optim.Adam(net.parameters()), lr="scaled")
    assert simulated(net, laconic.SGD(), torch.optim.Adam(net.parameters()), lr="scaled").training is not None


class WithoutLearningRate(torch.optim.Optimizer):
    """Its groups have no learning rate."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.1 * parameter.grad


def test_an_optimizer_without_a_learning_rate_trains_and_is_refused_by_methods_that_read_it():
    net = small_model.net()
    for name in ("sgd", "ssgd-mv"):
        start = small_model.values(net)
        simulation = simulated(net, methods.with_test_settings(name), WithoutLearningRate(net.parameters()))
        assert not torch.equal(take(simulation, [0]), start)
    with pytest.raises(ValueError, match=r"sparse reads the learning rate, and WithoutLearningRate has no 'lr'"):
        simulated(net, laconic.SparseSGD(), WithoutLearningRate(net.parameters()))
