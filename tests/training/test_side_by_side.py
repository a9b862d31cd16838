"""`Simulation(side_by_side=n)`: backward passes in several threads, with the bits of one after the other."""

import re
import threading

import pytest
import torch
from torch import nn

import laconic
from laconic.errors import OptionError
from laconic.training.side_by_side import check_side_by_side
from support import methods, small_model
from support.inputs import over_inputs

METHODS = ("sgd", "compskip", "ssgd-mv", "ec-sgd", "powersgd")  # one vector, tensors, changes, two exchanges


def simulated(net, name="sgd", *, workers=4, **options):
    algorithm = methods.with_test_settings(name)
    inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr)
    return laconic.Simulation(net, inner, algorithm, workers=workers, seed=5, **options)


def trained(make, name="sgd", rounds=3, **options):
    """All that a simulation leaves: losses, states with memories and buffers, parameters, counts."""
    torch.manual_seed(3)
    net = make()
    simulation = simulated(net, name, **options)
    losses = [simulation.step(lambda rank, at=at: small_model.loss(net, rank, at)) for at in range(rounds)]
    return losses, simulation.state_dict(), net.state_dict(), simulation.traffic.as_data()


def leaves(data):
    """Tensors as their bits, numbers as texts, so that NaN equals NaN; all with the way to them."""
    if isinstance(data, dict | list | tuple):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        return [(key, *leaf) for key, value in items for leaf in leaves(value)]
    return [(data.numpy().tobytes() if isinstance(data, torch.Tensor) else repr(data),)]


def same(one, other):
    differing = set(leaves(one)) ^ set(leaves(other))
    assert not differing, sorted(leaf[:-1] for leaf in differing)[:3]


def with_batch_norm():
    return nn.Sequential(nn.Linear(6, 11), nn.BatchNorm1d(11), nn.Dropout(0.3), nn.Tanh(), nn.Linear(11, 3))


class Counting(nn.Module):
    """Adds up in a buffer what it has seen, and computes with the sum."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("seen", torch.ones(6))

    def forward(self, inputs):
        if self.training:
            self.seen.add_(inputs.detach().mean(0))
        return self.layer(inputs * self.layer.weight.sum(0) * self.seen.clone())


class Branched(nn.Module):
    """Uses a layer for some mini-batches only."""

    def __init__(self):
        super().__init__()
        self.layer, self.other = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, inputs):
        return self.layer(inputs) + (self.other(inputs) if inputs[0, 0] > 0 else 0)


@over_inputs("name", METHODS)
def test_a_method_has_the_same_bits(name):
    same(trained(small_model.net, name), trained(small_model.net, name, side_by_side=3))


@over_inputs(("make", "n"), [(with_batch_norm, 2), (with_batch_norm, 9), (Counting, 2), (Branched, 3)])
def test_random_numbers_buffers_and_unused_parameters_are_the_same(make, n):
    same(trained(make), trained(make, side_by_side=n))


@over_inputs(
    "options",
    [
        {"faults": laconic.FaultPlan(seed=2, lost=0.2, crashed=0.3, crash_rounds=2), "layout": "dedicated"},
        {"clients_per_round": 2, "layout": "dedicated"},
        {"clip_norm": 0.05},
    ],
)
def test_absent_workers_and_clipping_are_the_same(options):
    alone = trained(small_model.net, "dropsign", **options)
    same(alone, trained(small_model.net, "dropsign", side_by_side=2, **options))


def test_losses_are_computed_in_rank_order_in_the_callers_thread():
    net, calls = small_model.net(), []
    simulation = simulated(net, side_by_side=2)

    def loss_of(rank):
        calls.append((rank, threading.current_thread()))
        return small_model.loss(net, rank, 0)

    simulation.step(loss_of)
    assert calls == [(rank, threading.current_thread()) for rank in range(4)]


def test_a_step_that_an_exception_ended_can_be_taken_again():
    def stepped(failing):
        net = small_model.net()
        simulation = simulated(net, "ec-sgd", side_by_side=2)
        for at in range(3):
            if at == failing:
                with pytest.raises(KeyboardInterrupt):
                    simulation.step(lambda rank, at=at: interrupted(rank, at, net))
            simulation.step(lambda rank, at=at: small_model.loss(net, rank, at))
        return small_model.values(net), simulation.traffic.as_data()

    def interrupted(rank, at, net):
        if rank == 2:
            raise KeyboardInterrupt
        return small_model.loss(net, rank, at)

    same(stepped(1), stepped(None))


def test_an_error_of_a_backward_pass_comes_from_the_step():
    net = small_model.net()
    with pytest.raises(RuntimeError, match="scalar"):
        simulated(net, side_by_side=2).step(lambda rank: net(small_model.batch(rank, 0)[0]))


def test_hooks_of_saved_tensors_are_refused():
    net = small_model.net()

    def loss_of(rank):
        inputs, labels = small_model.batch(rank, 0)
        return nn.functional.cross_entropy(torch.utils.checkpoint.checkpoint(net, inputs, use_reentrant=False), labels)

    with pytest.raises(RuntimeError, match=r"side_by_side=2: hooks of saved tensors.*leave it at 1"):
        simulated(net, side_by_side=2).step(loss_of)


def test_hooks_that_would_not_run_are_refused():
    net = small_model.net()
    net[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    with pytest.raises(RuntimeError, match=r"side_by_side=2: hooks of register_post_accumulate_grad_hook.*at 1"):
        simulated(net, side_by_side=2).step(lambda rank: small_model.loss(net, rank, 0))


def test_a_buffer_that_a_backward_pass_still_reads_is_refused_and_never_read_after_it_was_changed():
    values = []
    for side_by_side in (1, 2):
        torch.manual_seed(3)
        net = with_batch_norm()
        simulation = simulated(net, side_by_side=side_by_side)
        simulation.step(lambda rank, net=net: small_model.loss(net, rank, 0))  # statistics of each worker's own
        net.eval()
        refusal = ""  # there is none where the pass has ended before the next worker's buffers come
        try:
            simulation.step(lambda rank, net=net: small_model.loss(net, rank, 1))
        except RuntimeError as error:
            refusal = str(error)
        values.append(None if refusal else small_model.values(net))
    assert values[0] is not None
    is_refused = re.search(r"side_by_side=2: a backward pass reads a buffer.*leave it at 1", refusal)
    assert is_refused if values[1] is None else torch.equal(values[1], values[0])


def test_jobs_without_one_model_for_all_are_refused_before_any_loss():
    for name, options, why in (
        ("sgd", {"side_by_side": 0}, "must be at least 1"),
        ("dsgd", {}, "the workers of dsgd have models of their own"),
        ("asgd", {}, "the workers of asgd have models of their own"),
        ("sasg", {}, "sasg changes the model to compute second gradients"),
        ("sgd", {"local_steps": 2}, "the inner optimizer changes the model before each exchange"),
    ):
        with pytest.raises(OptionError, match=f"side_by_side=[02].*{why}"):
            simulated(small_model.net(), name, **{"side_by_side": 2} | options)
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(OptionError, match="side_by_side=2: the inner optimizer changes the model before each exchange"):
        laconic.Simulation(net, inner, methods.with_test_settings("ssgd-mv"), workers=2, side_by_side=2)
    with pytest.raises(TypeError, match="side_by_side='2'"):
        simulated(small_model.net(), side_by_side="2")
    with pytest.raises(OptionError, match="on cuda, and only cores"):
        check_side_by_side(2, methods.with_test_settings("sgd"), 1, device="cuda")
