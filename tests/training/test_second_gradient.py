"""A second evaluation of a mini-batch has no side effects: streams, buffers, parameters and later batches are equal."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import laconic
from laconic.algorithms.lasg import LASG
from laconic.algorithms.sasg import SASG
from support import optimizers, small_model
from support.inputs import over_inputs

NEVER = 10**6
ONCE = {  # evaluates once a round: every round uploads, whatever the gradient is
    "lasg": LASG(alpha=0.0, warm_up_rounds=NEVER),
    "sasg": SASG(density=0.3, alpha=0.0, warm_up_rounds=NEVER),
}
TWICE = {  # evaluates twice from round 1 on, and always uploads: the threshold is tiny
    "lasg": LASG(alpha=1e-300, warm_up_rounds=0, max_delay=NEVER),
    "lasg wk1": LASG(alpha=1e-300, warm_up_rounds=0, max_delay=NEVER, rule="wk1"),
    "lasg pse": LASG(alpha=1e-300, warm_up_rounds=0, max_delay=NEVER, rule="pse"),
    "sasg": SASG(density=0.3, alpha=1e-300, warm_up_rounds=0, max_delay=NEVER),
}
each_pair = pytest.mark.parametrize(
    ("once", "twice"), [(ONCE[name.split()[0]], twice) for name, twice in TWICE.items()], ids=TWICE
)


def model():
    """A net with dropout, and with batch norm, which counts batches."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3))


def random_loss(net, log):
    """The loss on a batch that is sampled from all three global random streams at the call."""
    inputs = torch.randn(8, 6) + float(np.random.standard_normal()) + random.gauss(0, 1)
    log.append(inputs.clone())
    labels = torch.randint(3, (8,))
    return nn.functional.cross_entropy(net(inputs), labels)


def streams():
    """The states of the three random streams."""
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        random.getstate(),
    )


def start_streams(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.fixture(autouse=True)
def streams_put_back():
    """Restore the streams, so that other tests do not depend on these."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])
    random.setstate(before[2])


def in_the_simulator(algorithm, rounds=6):
    """Returns parameters, buffers and streams after every round, and all batches that were evaluated."""
    net, log, after = model(), [], []
    inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    simulation = laconic.Simulation(net, inner, algorithm, workers=3, layout="rank0")
    start_streams(8)
    for _ in range(rounds):
        losses = simulation.step(lambda rank: random_loss(net, log))
        after.append(({key: value.clone() for key, value in net.state_dict().items()}, streams(), losses))
    own = [[buffer.clone() for buffer in buffers] for buffers in simulation._workers.buffers]
    assert simulation.traffic.up.skips == 0
    return after, own, log


def in_a_process(algorithm, rounds=6, set_to_none=True):
    """The same with `DistributedOptimizer`."""
    net, log, after = model(), [], []
    inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    opt = laconic.DistributedOptimizer(inner, algorithm, model=net, layout="rank0")
    start_streams(8)
    for _ in range(rounds):

        def closure():
            opt.zero_grad(set_to_none)
            loss = random_loss(net, log)
            loss.backward()
            return loss

        loss = float(opt.step(closure).detach())
        directions = [parameter.grad.clone() for parameter in net.parameters()]
        after.append(({key: value.clone() for key, value in net.state_dict().items()}, streams(), [loss, directions]))
    assert opt.traffic.up.skips == 0
    return after, [], log


def assert_no_trace(once, twice, n_workers, rounds=6):
    (expected, expected_own, batches), (found, found_own, all_batches) = once, twice
    for round_ in range(rounds):
        for one, other in zip(expected[round_], found[round_], strict=True):
            if isinstance(one, dict):
                assert one.keys() == other.keys()
                assert all(torch.equal(one[key], other[key]) for key in one), round_
            elif isinstance(one, tuple):
                assert one == other, round_
            else:
                torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(expected_own, found_own, rtol=0, atol=0)
    assert len(batches) == rounds * n_workers
    assert len(all_batches) > len(batches), "it did evaluate a second time"
    stored = [batches[0]]
    for batch in all_batches[1:]:
        if not torch.equal(batch, stored[-1]):  # the second evaluation samples the same batch again
            stored.append(batch)
    torch.testing.assert_close(stored, batches, rtol=0, atol=0)


@each_pair
def test_in_the_simulator_a_second_evaluation_leaves_no_trace(once, twice):
    assert_no_trace(in_the_simulator(once), in_the_simulator(twice), n_workers=3)


@each_pair
@over_inputs("set_to_none", (True, False))
def test_in_a_process_a_second_evaluation_leaves_no_trace(group_of_one, once, twice, set_to_none):
    runs = [in_a_process(algorithm, set_to_none=set_to_none) for algorithm in (once, twice)]
    assert_no_trace(*runs, n_workers=1)


def test_buffers_count_every_batch_once():
    net, log = model(), []
    simulation = laconic.Simulation(net, torch.optim.SGD(net.parameters(), lr=0.05), TWICE["sasg"], workers=2)
    for round_ in range(5):
        simulation.step(lambda rank: random_loss(net, log))
        assert net[1].num_batches_tracked == round_ + 1
    assert len(log) == 2 + 4 * 2 * 2


def test_the_second_gradient_is_of_the_same_batch_at_the_other_parameters():
    """At the parameters where the model is, it is the first gradient to the bit, dropout and batch norm included."""
    seen = []

    class WatchedGradients(LASG):
        def work(self, me):
            gradients = me.gradient, me.gradient_at(me.parameters), me.gradient_at(me.parameters + 1)
            seen.append([gradient.clone() for gradient in gradients])  # they are valid in this round only
            return super().work(me)

    net, log = model(), []
    inner = torch.optim.SGD(net.parameters(), lr=0.05)
    simulation = laconic.Simulation(net, inner, WatchedGradients(alpha=0.0, warm_up_rounds=NEVER), workers=2)
    for _ in range(3):
        simulation.step(lambda rank: random_loss(net, log))
    assert len(seen) == 6
    for one, again, elsewhere in seen:
        assert torch.equal(one, again)
        assert not torch.allclose(one, elsewhere)


@pytest.mark.parametrize(
    "algorithm", [LASG(alpha=2.0, warm_up_rounds=1), SASG(density=0.3, alpha=2.0, warm_up_rounds=1)]
)
def test_the_two_drivers_agree_bit_for_bit_if_some_workers_skip(group_of_one, algorithm):
    ends = []
    for driver in ("process", "simulator"):
        net, log = model(), []
        inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        if driver == "process":
            opt = laconic.DistributedOptimizer(inner, algorithm, model=net, layout="rank0")
        else:
            simulation = laconic.Simulation(net, inner, algorithm, workers=1, layout="rank0")
        start_streams(8)
        for _ in range(12):

            def closure(inner=inner, net=net, log=log):
                inner.zero_grad()
                loss = random_loss(net, log)
                loss.backward()
                return loss

            if driver == "process":
                opt.step(closure)
            else:
                simulation.step(lambda rank, net=net, log=log: random_loss(net, log))
        traffic = opt.traffic if driver == "process" else simulation.traffic
        ends.append((net.state_dict(), streams(), traffic.up))
        assert 0 < traffic.up.skips < 12
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=0, atol=0)
    assert ends[0][1:] == ends[1][1:]


# What is refused.


@pytest.mark.parametrize("algorithm", [SASG(density=0.3), LASG()], ids=lambda a: a.name)
def test_without_a_closure_or_the_model_there_is_a_message_with_the_remedy(group_of_one, algorithm):
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"model: {algorithm.name} evaluates each mini-batch .* pass model=model"):
        laconic.DistributedOptimizer(inner, algorithm)
    opt = laconic.DistributedOptimizer(inner, algorithm, model=net)
    small_model.loss(net, 0, 0).backward()
    with pytest.raises(RuntimeError, match=rf"{algorithm.name} evaluates .* step\(\) needs a closure: def closure"):
        opt.step()


@pytest.mark.parametrize("algorithm", [LASG(rule="ps"), laconic.ALGORITHMS["lag"]()], ids=lambda a: a.name)
def test_methods_with_one_evaluation_need_neither(group_of_one, algorithm):
    net = small_model.net()
    start = small_model.values(net)
    opt = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), algorithm)
    for round_ in range(15):
        optimizers.one_step(opt, net, 0, round_)
    assert not torch.equal(small_model.values(net), start)


class Recurrent(nn.Module):
    """A model that keeps a hidden state from batch to batch in a buffer, which it replaces."""

    def __init__(self):
        super().__init__()
        self.core = small_model.net()
        self.register_buffer("hidden", torch.zeros(6))

    def forward(self, inputs):
        self.hidden = 0.5 * self.hidden + inputs.mean(0)
        return self.core(inputs + self.hidden)


@pytest.mark.parametrize(("once", "twice"), [(ONCE["sasg"], TWICE["sasg"])], ids=["sasg"])
def test_a_hidden_state_in_a_buffer_moves_once_even_if_the_model_replaces_it(group_of_one, once, twice):
    ends = []
    for algorithm in (once, twice):
        net, calls = Recurrent(), []
        opt = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.05), algorithm, model=net)
        for round_ in range(6):

            def closure(opt=opt, net=net, calls=calls, round_=round_):
                calls.append(round_)
                opt.zero_grad()
                loss = small_model.loss(net, 0, round_)
                loss.backward()
                return loss.detach()

            opt.step(closure)
        ends.append((net.state_dict(), len(calls)))
    (expected, n_once), (found, n_twice) = ends
    assert (n_once, n_twice) == (6, 11)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_what_a_closure_must_not_keep_is_stated_by_methods_that_may_call_it_twice(stated):
    for algorithm in (SASG(density=0.3), LASG(rule="ps"), laconic.LAG(), laconic.SGD(), SASG(density=0.3)):
        net = small_model.net()
        laconic.Simulation(net, torch.optim.SGD(net.parameters(), lr=0.05), algorithm, workers=2)
    assert len(stated.messages) == 1
    assert stated.messages[0].startswith("sasg: a step may evaluate its mini-batch twice")
    assert "moves twice" in stated.text
