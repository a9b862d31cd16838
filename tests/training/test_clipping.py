"""Clipping acts on the gradient that the inner optimizer is about to apply."""

import math

import pytest
import torch
from torch import nn

import laconic
from support import methods, optimizers, small_model
from support.inputs import over_inputs

CLIPS = [{"clip_norm": 0.05}, {"clip_value": 0.01}]
each_clip = pytest.mark.parametrize("clip", CLIPS, ids=["norm", "value"])
BOUND = 0.05


def by_torch(parameters, clip_norm=None, clip_value=None):
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    else:
        nn.utils.clip_grad_value_(parameters, clip_value)


def simulated(net, algorithm, inner=None, workers=3, **settings):
    inner = inner or torch.optim.SGD(net.parameters(), lr=0.1)
    return laconic.Simulation(net, inner, algorithm, workers=workers, seed=5, **settings)


def take(simulation, steps, factor=1.0):
    for step in range(steps):
        simulation.step(lambda rank, step=step: factor * small_model.loss(simulation.model, rank, step))
    return small_model.values(simulation.model)


def norm_of_gradients(net):
    return float(torch.cat([p.grad.reshape(-1) for p in net.parameters()]).norm())


@pytest.mark.slow
@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("inner", optimizers.INNER)
@each_clip
@over_inputs("name", ("sgd", "sgd-server", "sgd-model"))
def test_one_rank_that_clips_is_the_inner_optimizer_that_clips(inner, clip, name):
    net, twin = small_model.net(), small_model.net()
    opt = optimizers.wrapped(net, name, "rank0", optimizers.INNER[inner](net.parameters()), **clip)
    reference = optimizers.INNER[inner](twin.parameters())
    for round_ in range(6):
        optimizers.one_step(opt, net, 0, round_)
        reference.zero_grad()
        small_model.loss(twin, 0, round_).backward()
        by_torch(twin.parameters(), **clip)
        reference.step()
    if name == "sgd-model":  # the model plus its change, not the step itself
        torch.testing.assert_close(small_model.values(net), small_model.values(twin))
    else:
        assert torch.equal(small_model.values(net), small_model.values(twin))


@pytest.mark.parametrize("name", [name for name in methods.IN_STEP if laconic.ALGORITHMS[name].consumes == "gradient"])
def test_a_method_of_gradients_applies_no_direction_above_the_bound(name):
    algorithm, net = methods.with_test_settings(name), small_model.net()
    free = simulated(small_model.net(), algorithm)
    clipped = simulated(net, algorithm, clip_norm=BOUND)
    steps = []
    for simulation in (free, clipped):
        before = small_model.values(simulation.model)
        steps.append((take(simulation, 1, factor=10.0) - before) / 0.1)
    assert float(steps[0].norm()) > 2 * BOUND
    assert float(steps[1].norm()) == pytest.approx(BOUND, rel=1e-3)
    torch.testing.assert_close(steps[1] * float(steps[0].norm()) / BOUND, steps[0], rtol=1e-2, atol=1e-3)


def test_an_asynchronous_server_clips_the_direction_that_it_applies():
    net, twin = small_model.net(), small_model.net()
    simulation = simulated(net, laconic.ASGD(), workers=1, compute_s=0.01, clip_norm=BOUND)
    reference = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(4):
        simulation.step(lambda rank, step=step: small_model.loss(net, rank, step))
        reference.zero_grad()
        small_model.loss(twin, 0, step).backward()
        by_torch(twin.parameters(), clip_norm=BOUND)
        reference.step()
    assert torch.equal(small_model.values(net), small_model.values(twin))


@pytest.mark.parametrize("name", ["sgd", "sgd-model", "signsgd-mv"])
def test_local_steps_clip_each_step_of_each_worker(name):
    """The mean of models, and where a method takes gradients, what it makes of the same changes."""
    nets = [small_model.net().double() for _ in range(2)]
    applied = []

    def record(optimizer, arguments, keywords):
        applied.append(norm_of_gradients(nets[0]))

    inner = torch.optim.SGD(nets[0].parameters(), lr=0.1)
    inner.register_step_pre_hook(record)
    take(simulated(nets[0], methods.with_test_settings(name), inner, workers=2, local_steps=3, clip_norm=BOUND), 3)
    assert len(applied) == 6
    assert applied == pytest.approx([BOUND] * 6, rel=1e-3)
    if name != "signsgd-mv":
        twins = [small_model.net().double() for _ in range(2)]
        for rank, twin in enumerate(twins):
            own = torch.optim.SGD(twin.parameters(), lr=0.1)
            for step in range(3):
                own.zero_grad()
                small_model.loss(twin, rank, step).backward()
                by_torch(twin.parameters(), clip_norm=BOUND)
                own.step()
        mean = (small_model.values(twins[0]) + small_model.values(twins[1])) / 2
        torch.testing.assert_close(small_model.values(nets[0]), mean, rtol=0, atol=1e-14)


# By value, many elements would be equally large, and rounding would decide which of them are selected.
KNOWN = [(name, CLIPS[0]) for name in ("sgd-model", "ssgd-mv", "ssgd-topk", "diloco", "sparseloco")]


@pytest.mark.parametrize(("name", "clip"), [*KNOWN, ("sgd-model", CLIPS[1]), ("diloco", CLIPS[1])])
def test_a_change_that_is_known_without_the_step_is_that_of_the_clipped_step(name, clip):
    ends = []
    for taken in (False, True):
        net = small_model.net().double()
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        if taken:
            inner.register_step_pre_hook(lambda *_: None)  # a step with a hook is taken
        simulation = simulated(net, methods.with_test_settings(name), inner, **clip)
        assert simulation.training.local.is_known_in(0) is not taken
        ends.append(take(simulation, 4))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-13)
    unclipped = simulated(small_model.net().double(), methods.with_test_settings(name))
    assert not torch.allclose(take(unclipped, 4), ends[0])


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("name", ["sgd", "sgd-model", "ssgd-mv"])
@over_inputs("hooked", (False, True))
def test_gradients_are_clipped_after_the_loss_scale_is_taken_off(name, hooked):
    ends = []
    for scaled in (True, False):
        net = small_model.net()
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        if hooked:
            inner.register_step_pre_hook(lambda *_: None)
        opt = optimizers.wrapped(net, name, "auto", inner, clip_norm=BOUND)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        for round_ in range(3):
            opt.zero_grad()
            scaler.scale(small_model.loss(net, 0, round_)).backward()
            scaler.step(opt)
            scaler.update()
        ends.append(small_model.values(net))
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)


def test_parameters_without_a_gradient_do_not_count():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle, self.core = nn.Linear(50, 50), small_model.net()

        def forward(self, inputs):
            return self.core(inputs)

    net, core = Idle(), small_model.net()
    ends = [take(simulated(model, laconic.SGD(), clip_norm=BOUND), 2) for model in (net, core)]
    assert torch.equal(small_model.values(net.core), ends[1])


@pytest.mark.filterwarnings("ignore:.*bring the same first gradient")
def test_a_norm_whose_squares_overflow_clips_to_the_bound_and_not_to_zero():
    weight = nn.Parameter(torch.zeros(4))
    simulation = simulated(nn.ParameterList([weight]), laconic.SGD(), torch.optim.SGD([weight], lr=1.0), clip_norm=2.0)
    simulation.step(lambda rank: (weight * torch.tensor([3e38, 0.0, 0.0, -3e38])).sum())
    torch.testing.assert_close(weight.detach(), torch.tensor([-1.0, 0.0, 0.0, 1.0]) * 2 / math.sqrt(2))


def test_a_clipped_direction_leaves_the_memory_that_holds_the_unclipped_one():
    """LAG's server returns the sum of what it stores; with one worker that is what it stored."""
    net = small_model.net()
    simulation = simulated(net, laconic.LAG(alpha=0.0), workers=1, clip_norm=1e-3)
    take(simulation, 1)
    stored = simulation.driver.servers[0].view.memory["stored.0"]
    small_model.loss(twin := small_model.net(), 0, 0).backward()
    assert torch.equal(stored, torch.cat([p.grad.reshape(-1) for p in twin.parameters()]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"clip_norm": 0.0}, ValueError, r"clip_norm=0.0 must be a finite number above 0; None clips nothing"),
        ({"clip_norm": -1}, ValueError, r"clip_norm=-1 must be a finite"),
        ({"clip_value": math.nan}, ValueError, r"clip_value=nan must be a finite"),
        ({"clip_norm": math.inf}, ValueError, r"clip_norm=inf must be a finite"),
        ({"clip_norm": "1"}, TypeError, r"clip_norm='1' must be a number"),
        ({"clip_value": True}, TypeError, r"clip_value=True must be a number"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, ValueError, r"clip_norm=1.0 and clip_value=1.0: give one"),
    ],
)
def test_a_bound_that_is_no_number_above_zero_and_two_bounds_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        simulated(small_model.net(), laconic.SGD(), **settings)


def test_a_method_in_which_no_optimizer_applies_a_gradient_is_refused_by_name():
    class WithoutOptimizer(laconic.GlobalReplica):
        server_steps = False

    with pytest.raises(ValueError, match="clip_value: sgd-server returns parameters, so no optimizer applies"):
        simulated(small_model.net(), WithoutOptimizer(), clip_value=1.0)
