"""A `DistributedOptimizer` can be used as the optimizer inside: attributes, hooks, schedulers, torch.compile."""

import copy
import gc
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import laconic
from support import methods, optimizers, small_model
from support.inputs import over_inputs

pytestmark = pytest.mark.usefixtures("group_of_one")
ONE_STEP = [name for name in methods.IN_STEP if not methods.with_test_settings(name).second_gradient]


class Averaging(torch.optim.Optimizer):
    """As schedulefree's optimizers: what is evaluated, and what a step changes, are two sets of weights."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr, "train_mode": False})

    def train(self):
        self._switch(True)

    def eval(self):
        self._switch(False)

    def _switch(self, to):
        for group in self.param_groups:
            for p in group["params"] if group["train_mode"] != to and self.state else ():
                shown, p.data = p.data, self.state[p]["other"]
                self.state[p]["other"] = shown
            group["train_mode"] = to

    def step(self, closure=None):
        for group in self.param_groups:
            assert group["train_mode"], "Please insert .train() and .eval() calls"
            for p in group["params"]:
                state = self.state[p]
                state.setdefault("other", p.detach().clone())
                p.data.sub_(p.grad, alpha=group["lr"])
                state["other"].lerp_(p.data, 0.1)


def test_methods_of_the_inner_optimizer_are_there_and_do_what_they_do_without_a_wrapper():
    net, twin = small_model.net(), small_model.net()
    inner, alone = (Averaging(model.parameters(), lr=0.1) for model in (net, twin))
    opt = optimizers.wrapped(net, "sgd", "auto", inner)
    for optimizer, model in ((opt, net), (alone, twin)):
        optimizer.train()
        for round_ in range(4):
            optimizer.zero_grad()
            small_model.loss(model, 0, round_).backward()
            optimizer.step()
        optimizer.eval()
    assert torch.equal(small_model.values(net), small_model.values(twin))
    assert opt.param_groups[0]["train_mode"] is False
    with pytest.raises(AttributeError, match="'Averaging' object has no attribute 'swap'"):
        _ = opt.swap


def test_groups_state_and_defaults_are_those_of_the_inner_optimizer_also_when_they_are_replaced():
    net = small_model.net()
    opt = optimizers.wrapped(net, "sgd", "auto", torch.optim.Adam(net.parameters(), lr=0.1))
    assert isinstance(opt, torch.optim.Optimizer)
    optimizers.one_step(opt, net, 0, 0)
    assert opt.state is opt.inner.state
    assert opt.state.keys() == set(net.parameters())
    assert opt.defaults is opt.inner.defaults
    assert opt.defaults["betas"] == (0.9, 0.999)
    opt.inner.param_groups = [dict(group) for group in opt.inner.param_groups]
    assert opt.param_groups is opt.inner.param_groups
    opt.param_groups = [dict(group) for group in opt.param_groups]
    assert opt.param_groups is opt.inner.param_groups
    assert "param_groups" not in vars(opt)
    assert repr(opt).startswith("DistributedOptimizer(")
    assert "Adam(lr=0.1)" in repr(opt)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STEP)
@over_inputs("place", ("wrapper", "inner", "all optimizers"))
def test_a_step_hook_runs_once_for_each_step_that_is_applied(name, place):
    net = small_model.net()
    opt = optimizers.wrapped(net, name, "auto")
    seen = []
    before, after = lambda *_: seen.append("before"), lambda *_: seen.append("after")
    if place == "all optimizers":
        handles = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    else:
        optimizer = opt if place == "wrapper" else opt.inner
        handles = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
    try:
        for round_ in range(3):
            optimizers.one_step(opt, net, 0, round_)
        assert seen == ["before", "after"] * 3
        optimizers.one_step(opt, net, 0, 3, torch.nan)
        assert seen == ["before", "after"] * 3
    finally:
        for handle in handles:
            handle.remove()
    optimizers.one_step(opt, net, 0, 4)
    assert len(seen) == 6


def test_hooks_of_saving_and_loading_run_once_from_either_side():
    for of_wrapper in (True, False):
        net = small_model.net()
        opt = optimizers.wrapped(net, "ec-sgd", "auto")
        optimizer, seen = opt if of_wrapper else opt.inner, []
        optimizer.register_state_dict_pre_hook(lambda _, seen=seen: seen.append("saving"))
        optimizer.register_state_dict_post_hook(lambda _, state, seen=seen: seen.append("saved") or state | {"more": 1})
        optimizer.register_load_state_dict_pre_hook(lambda _, state, seen=seen: seen.append("loading"))
        optimizer.register_load_state_dict_post_hook(lambda _, seen=seen: seen.append("loaded"))
        state = opt.state_dict()
        assert state["more"] == 1
        opt.load_state_dict({key: value for key, value in state.items() if key != "more"})
        assert seen == ["saving", "saved", "loading", "loaded"]


SCHEDULERS = {
    "one cycle, momentum too": lambda opt: lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=8),
    "in sequence": lambda opt: lr_scheduler.SequentialLR(
        opt, [lr_scheduler.LinearLR(opt, 0.5, total_iters=2), lr_scheduler.ExponentialLR(opt, 0.9)], milestones=[2]
    ),
    "on plateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=0, threshold=1e9),
    "cyclic": lambda opt: lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=2),
    "warm restarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 3),
}


@pytest.mark.parametrize("scheduler_name", SCHEDULERS)
@over_inputs("holds", ("wrapper", "inner", "inner, before wrapping"))
def test_schedulers_may_hold_either_optimizer_and_do_not_warn(scheduler_name, holds):
    ends = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for plain in (True, False):
            net = small_model.net()
            opt = inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
            scheduler = SCHEDULERS[scheduler_name](inner) if plain or holds == "inner, before wrapping" else None
            if not plain:
                opt = optimizers.wrapped(net, "sgd", "auto", inner)
                scheduler = scheduler or SCHEDULERS[scheduler_name](opt if holds == "wrapper" else inner)
            for round_ in range(6):
                opt.zero_grad()
                loss = small_model.loss(net, 0, round_)
                loss.backward()
                opt.step()
                scheduler.step(*[float(loss.detach())] * (scheduler_name == "on plateau"))
            ends.append((small_model.values(net), inner.param_groups[0]["lr"], inner.param_groups[0]["momentum"]))
    assert [str(warning.message) for warning in caught if "lr_scheduler.step" in str(warning.message)] == []
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_a_copy_is_refused_and_leaves_the_original_as_it_was(take):
    net = small_model.net()
    opt = optimizers.wrapped(net, "ec-sgd", "auto")
    with pytest.raises(
        TypeError, match=r"connections to the other ranks.*copy opt\.inner, or save opt\.state_dict\(\)"
    ):
        take(opt)
    optimizers.one_step(opt, net, 0, 0)
    copied = copy.deepcopy(opt.inner)
    copied.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert len(pickle.loads(pickle.dumps(opt.inner)).param_groups) == 1


@pytest.mark.slow
def test_groups_are_refused_on_the_inner_optimizer_too_until_the_wrapper_is_gone():
    net = small_model.net()
    inner = torch.optim.SGD(net[2].parameters(), lr=0.1)
    opt = optimizers.wrapped(net, "sgd", "auto", inner)
    for optimizer in (opt, inner):
        with pytest.raises(RuntimeError, match=r"add_param_group.*make a new DistributedOptimizer"):
            optimizer.add_param_group({"params": list(net[0].parameters())})
    assert len(inner.param_groups) == 1
    gone = weakref.ref(opt)
    del opt, optimizer
    gc.collect()
    assert gone() is None
    inner.add_param_group({"params": list(net[0].parameters())})
    optimizers.one_step(optimizers.wrapped(net, "sgd", "auto", inner), net, 0, 0)


def by_group(inner, net):
    inner.param_groups.append({**inner.param_groups[0], "params": list(net[0].parameters())})


def by_parameter(inner, net):
    inner.param_groups[0]["params"].append(net[0].weight)


def by_class(inner, net):
    torch.optim.Optimizer.add_param_group(inner, {"params": list(net[0].parameters())})


@pytest.mark.parametrize("add", [by_group, by_parameter, by_class])
@over_inputs("of", ("processes", "simulation"))
def test_parameters_that_are_added_by_hand_are_refused_at_the_next_step(add, of):
    net = small_model.net()
    inner = torch.optim.SGD(net[2].parameters(), lr=0.1)
    if of == "processes":
        opt = optimizers.wrapped(net, "sgd", "auto", inner)
        step = lambda round_: optimizers.one_step(opt, net, 0, round_)  # noqa: E731
    else:
        simulation = laconic.Simulation(net, inner, laconic.SGD(), workers=2)
        step = lambda round_: simulation.step(lambda rank: small_model.loss(net, rank, round_))  # noqa: E731
    step(0)
    add(inner, net)
    before = small_model.values(net)
    with pytest.raises(
        RuntimeError, match=r"the optimizer has \d parameters and had 2.*make a new DistributedOptimizer"
    ):
        step(1)
    assert torch.equal(small_model.values(net), before)


def test_the_optimizer_that_is_made_last_has_the_parameters_and_an_earlier_one_says_so():
    net = small_model.net()
    before = optimizers.wrapped(net, "sgd", "auto")
    again = optimizers.wrapped(net, "compskip", "auto")
    optimizers.one_step(again, net, 0, 0)
    with pytest.raises(RuntimeError, match=r"'0.weight' is trained by a DistributedOptimizer that was made later"):
        optimizers.one_step(before, net, 0, 1)
    assert before.traffic.rounds == 0
    head = optimizers.wrapped(net, "sgd", "auto", torch.optim.SGD(net[2].parameters(), lr=0.1))
    optimizers.one_step(head, net, 0, 1)
    with pytest.raises(RuntimeError, match=r"'2.weight' is trained by a DistributedOptimizer that was made later"):
        optimizers.one_step(again, net, 0, 2)


def test_two_optimizers_that_share_some_parameters_are_refused_with_the_name_of_one():
    net = small_model.net()
    parameters = list(net.parameters())
    earlier = optimizers.wrapped(net, "sgd", "auto", torch.optim.SGD(parameters[:3], lr=0.1))
    with pytest.raises(ValueError, match=r"'2.weight' is trained by another DistributedOptimizer.*\(1 are in both\)"):
        optimizers.wrapped(net, "sgd", "auto", torch.optim.SGD(parameters[2:], lr=0.1))
    optimizers.one_step(earlier, net, 0, 0)
    del earlier
    optimizers.one_step(optimizers.wrapped(net, "sgd", "auto", torch.optim.SGD(parameters[2:], lr=0.1)), net, 0, 0)


def test_a_compiled_training_step_does_what_a_plain_one_does_and_does_not_compile_the_exchange():
    ends, graphs = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    for is_compiled in (False, True):
        net = small_model.net()
        opt = optimizers.wrapped(net, "compskip", "rank0")

        def step(inputs, labels, net=net, opt=opt):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs), labels)
            loss.backward()
            opt.step()

        if is_compiled:
            step = torch.compile(step, backend=backend)
        for round_ in range(4):
            step(*small_model.batch(0, round_))
        ends.append(small_model.values(net))
    assert torch.equal(*ends)
    assert len(graphs) == 1
    torch.compiler.reset()


def test_a_closure_with_a_compiled_model_stays_compiled():
    net, calls = small_model.net(), []

    def backend(graph, inputs):
        def run(*arguments):
            calls.append("compiled")
            return graph(*arguments)

        return run

    compiled = torch.compile(net, backend=backend)
    opt = optimizers.wrapped(net, "sgd", "auto", model=compiled)

    def closure():
        opt.zero_grad()
        loss = small_model.loss(compiled, 0, 0)
        loss.backward()
        return loss

    opt.step(closure)
    assert calls == ["compiled"]
    torch.compiler.reset()


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@over_inputs("fused", (True, False))
def test_a_direction_has_the_strides_of_its_parameter(memory_format, fused):
    """Fused optimizers walk through parameter and gradient as they lie in memory."""
    ends = []
    for plain in (True, False):
        torch.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=memory_format)
        opt = inner = torch.optim.Adam(net.parameters(), lr=0.1, fused=fused)
        if not plain:
            opt = optimizers.wrapped(net, "sgd", "rank0", inner)
        for _ in range(3):
            opt.zero_grad()
            net(torch.randn(5, 3, 4, 4).to(memory_format=memory_format)).square().sum().backward()
            opt.step()
            assert net[0].weight.grad.stride() == net[0].weight.stride()
        ends.append(torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()]))
    assert torch.equal(*ends)
