"""Asynchronous SGD in the simulator: event times, staleness, single gradients left out, stability, SGD as its limit."""

import math

import pytest
import torch

import laconic
from laconic import ASGD, Link, Simulation
from laconic.network import ComputeTime
from support import small_model

pytestmark = pytest.mark.filterwarnings("ignore:.*bring the same first gradient")  # all workers have one quadratic

PULLED_OVER = 3.0  # seconds of a message of the golden traces: latency 1, transfer 2


def on_a_quadratic(workers, steps, *, lr=0.1, message_s=PULLED_OVER, compute_s=4.0, momentum=0.0, **settings):
    """Steps of all workers on (x - 1)^2 / 2, x from 0, in float64."""
    x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    inner = torch.optim.SGD([x], lr=lr, momentum=momentum)
    simulation = Simulation(
        torch.nn.ParameterList([x]), inner, ASGD(**settings), workers=workers, link=Link(latency_s=message_s),
        compute_s=compute_s,
    )  # fmt: skip
    for _ in range(steps):
        simulation.step(lambda rank: 0.5 * (x - 1).square().sum())
    return simulation


def trace(simulation):
    return [(update.time_ns / 1e9, update.worker, update.staleness) for update in simulation.driver.engine.updates]


@pytest.mark.parametrize(
    ("workers", "message_s", "compute_s", "expected"),
    [
        (1, 3.0, 4.0, [(10, 0, 0), (20, 0, 0), (30, 0, 0), (40, 0, 0)]),
        (3, 3.0, 4.0, [(10, 0, 0), (13, 1, 1), (16, 2, 2), (20, 0, 2), (23, 1, 2), (26, 2, 2), (30, 0, 2), (33, 1, 2),
                       (36, 2, 2), (40, 0, 2), (43, 1, 2), (46, 2, 2)]),
        (3, 3.0, {0: 4.0, 1: 4.0, 2: 20.0},
         [(10, 0, 0), (13, 1, 1), (20, 0, 1), (23, 1, 1), (30, 0, 1), (33, 2, 5), (36, 1, 2), (40, 0, 2), (46, 1, 1),
          (50, 0, 1), (56, 1, 1), (59, 2, 5)]),
        (4, 6.5, 10.0, [(23, 0, 0), (29.5, 1, 1), (36, 2, 2), (42.5, 3, 3), (49, 0, 3), (55.5, 1, 3)]),
    ],
    ids=["one worker", "three equal workers", "a slow worker", "a saturated server"],
)  # fmt: skip
def test_updates_have_the_times_and_the_staleness_of_the_worked_examples(workers, message_s, compute_s, expected):
    simulation = on_a_quadratic(workers, 4, message_s=message_s, compute_s=compute_s)
    assert trace(simulation)[: len(expected)] == expected


def test_every_gradient_is_evaluated_at_the_model_that_its_staleness_gives():
    """Computed again from the trace alone, with Python's floats."""
    simulation = on_a_quadratic(3, 3, compute_s={0: 4.0, 1: 4.0, 2: 20.0})
    path = [0.0]
    for _, _, staleness in trace(simulation):
        path.append(path[-1] - 0.1 * (path[-1 - staleness] - 1))
    assert max(staleness for _, _, staleness in trace(simulation)) == 5
    assert simulation.flat.values().tolist() == pytest.approx([path[-1]], rel=1e-14)


def test_a_fast_worker_runs_ahead_and_is_not_asked_again_until_the_others_catch_up():
    x = torch.nn.Parameter(torch.zeros(2))
    simulation = Simulation(
        torch.nn.ParameterList([x]), torch.optim.SGD([x], lr=0.1), ASGD(), workers=2, compute_s={0: 1.0, 1: 3.5}
    )
    asked = []
    for step in range(3):
        asked.append([])

        def loss_of(rank, step=step):
            asked[step].append(rank)
            return x.sum() * (step + 1)

        losses = simulation.step(loss_of)
        assert all(math.isfinite(loss) for loss in losses)
    assert [step.count(0) for step in asked] == [3, 4, 3]
    assert [step.count(1) for step in asked] == [1, 1, 1]
    assert simulation.traffic.rounds == 3


def test_a_step_that_the_fast_worker_has_already_done_returns_its_latest_loss():
    x = torch.nn.Parameter(torch.zeros(2))
    times = ComputeTime(seconds={0: 1.0, 1: 1.0}, tail_s=5.0)
    simulation = Simulation(
        torch.nn.ParameterList([x]), torch.optim.SGD([x], lr=0.1), ASGD(), workers=2, compute_s=times
    )
    latest, silent = {}, 0
    for step in range(30):
        asked = []

        def loss_of(rank, step=step, asked=asked):
            asked.append(rank)
            latest[rank] = float(100 * step + rank)
            return x.sum() * 0 + latest[rank]

        assert simulation.step(loss_of) == [latest[0], latest[1]]
        silent += len(set(asked)) == 1
    assert silent > 0, "one worker should have been ahead"


@pytest.mark.parametrize("settings", [{}, {"max_staleness": 0}, {"max_staleness": 3, "lr_scaling": "inverse"}], ids=str)
def test_one_worker_is_sgd_bit_for_bit(settings):
    ends = []
    for algorithm in (laconic.SGD(), ASGD(**settings)):
        net = small_model.net()
        inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
        simulation = Simulation(net, inner, algorithm, workers=1, link=Link(latency_s=0.01), compute_s=0.02)
        path = []
        for round_ in range(20):
            simulation.step(lambda rank, round_=round_, net=net: small_model.loss(net, rank, round_))
            path.append(small_model.values(net))
        ends.append(torch.stack(path))
    assert torch.equal(ends[0], ends[1])
    assert simulation.traffic.staleness == {0: 20}


def test_a_bound_of_zero_is_sgd_on_one_mini_batch_after_the_other_bit_for_bit():
    net, twin = small_model.net(), small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    simulation = Simulation(
        net, inner, ASGD(max_staleness=0), workers=3, link=Link(latency_s=0.01), compute_s={0: 1.0, 1: 0.2, 2: 3.0}
    )
    reference = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for round_ in range(6):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
        for rank in range(3):
            reference.zero_grad()
            small_model.loss(twin, rank, round_).backward()
            reference.step()
        assert torch.equal(small_model.values(net), small_model.values(twin))
    assert simulation.traffic.staleness == {0: 18}


@pytest.mark.parametrize(
    ("tau", "limit"),
    [(0, 2.0), (1, 1.0), (2, 0.618034), (3, 0.445042), pytest.param(7, 0.209057, marks=pytest.mark.nightly)],
)
def test_a_fixed_delay_is_stable_below_the_learning_rate_of_theory_and_not_above_it(tau, limit):
    """Scalar quadratic, curvature 1: stable for learning rates below 2 sin(pi / (2 (2 tau + 1)))."""
    assert 2 * math.sin(math.pi / (2 * (2 * tau + 1))) == pytest.approx(limit, abs=1e-6)
    farthest = {}
    for share in (0.97, 1.03):
        simulation = on_a_quadratic(tau + 1, 0, lr=share * limit, message_s=1.0, compute_s=10.0)
        (x,) = simulation.flat.parameters
        distances = []
        for _ in range(50):
            simulation.step(lambda rank, x=x: 0.5 * (x - 1).square().sum())
            distances.append(float((x.detach() - 1).abs().max()))
        farthest[share] = max(distances[-10:])
        assert {staleness for _, _, staleness in trace(simulation)[tau:]} == {tau}
    assert farthest[0.97] < 0.5
    assert farthest[1.03] > 2


def test_a_learning_rate_divided_by_the_age_takes_smaller_steps_for_stale_gradients():
    simulation = on_a_quadratic(3, 1, lr_scaling="inverse")
    path = [0.0]
    for _, _, staleness in trace(simulation):
        path.append(path[-1] - 0.1 / (1 + staleness) * (path[-1 - staleness] - 1))
    assert trace(simulation)[2][2] == 2
    assert simulation.flat.values().tolist() == pytest.approx([path[-1]], rel=1e-14)


SLOW = {0: 4.0, 1: 4.0, 2: 60.0}


@pytest.mark.parametrize("tau", [0, 1, 2, 5])
def test_held_gradients_keep_the_staleness_within_the_bound_and_reach_it(tau):
    simulation = on_a_quadratic(3, 5, compute_s=SLOW, max_staleness=tau)
    ages = [staleness for _, _, staleness in trace(simulation)]
    assert max(ages) == tau
    traffic = simulation.traffic
    assert sum(traffic.staleness.values()) == len(ages)
    assert max(traffic.staleness) == tau
    assert ("held" in traffic.updates) == (tau in (1, 2, 5))
    assert simulation.traffic_of(2).staleness == {tau: 5}


def test_dropped_gradients_change_nothing_and_are_counted_for_their_worker():
    simulation = on_a_quadratic(3, 5, compute_s=SLOW, max_staleness=2, staleness="drop")
    assert {worker for _, worker, _ in trace(simulation)} == {0, 1}
    assert simulation.traffic_of(2).updates == {"dropped": 5}
    assert simulation.traffic_of(2).staleness == {}
    assert simulation.traffic.updates == {"dropped": 5}
    assert simulation.traffic_of(2).up.messages == simulation.traffic_of(2).down.messages == 5


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_gradient_with_inf_or_nan_affects_no_other_gradient(bad):
    nets = [small_model.net(), small_model.net()]
    ends = []
    for net, factor in zip(nets, (bad, None), strict=True):
        simulation = Simulation(
            net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), ASGD(), workers=3, link=Link(latency_s=0.01)
        )

        def loss_of(rank, round_, net=net, factor=factor):
            return small_model.loss(net, rank, round_) * (factor if factor and (rank, round_) == (1, 2) else 1.0)

        for round_ in range(5):
            simulation.step(lambda rank, round_=round_: loss_of(rank, round_))
        ends.append(simulation)
    assert torch.isfinite(small_model.values(nets[0])).all()
    non_finite, full = (simulation.traffic for simulation in ends)
    assert (non_finite.updates, non_finite.aborted_rounds, non_finite.rounds) == ({"aborted": 1}, 1, 5)
    assert sum(non_finite.staleness.values()) == sum(full.staleness.values()) - 1
    assert ends[0].traffic_of(1).updates == {"aborted": 1}
    assert not torch.equal(small_model.values(nets[0]), small_model.values(nets[1]))


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["top-k", "sign", "scaled-sign", "fractional", "dense"])
def test_gradients_may_be_compressed_and_the_model_comes_back_dense(compressor):
    net = small_model.net()
    algorithm = ASGD(compressor=laconic.compressors.COMPRESSORS[compressor]())
    lr = 0.002 if compressor == "sign" else 0.05
    simulation = Simulation(
        net, torch.optim.SGD(net.parameters(), lr=lr), algorithm, workers=3, link=Link(latency_s=0.01)
    )
    one = sum(simulation.step(lambda rank: small_model.loss(net, rank, 0)))
    for _ in range(60):
        last = sum(simulation.step(lambda rank: small_model.loss(net, rank, 0)))
    assert last < one
    traffic = simulation.traffic
    up, down = algorithm.paper_bits(simulation.flat.spec)
    assert traffic.up.paper_bits / traffic.up.messages == pytest.approx(up)
    assert traffic.down.paper_bits / traffic.down.messages == pytest.approx(down) == 32 * small_model.N_PARAMETERS


def test_the_same_distribution_of_compute_times_gives_the_same_nanoseconds_again():
    law = ComputeTime(seconds=1.0, factors={1: 4.0}, tail_s=0.5)
    one, again = (on_a_quadratic(4, 6, compute_s=law) for _ in range(2))
    assert trace(one) == trace(again)
    assert one.traffic == again.traffic


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"max_staleness": -1}, {}, r"asgd: max_staleness=-1 must be in \[0, inf\)"),
        ({"staleness": "wait"}, {}, "asgd: staleness='wait' must be one of hold, drop"),
        (
            {},
            {"layout": "sharded"},
            "layout='sharded' does not go with asgd: its server receives gradients at any time",
        ),
        ({}, {"layout": "rank0"}, "use dedicated"),
        ({}, {"local_steps": 2}, "asgd needs the gradient itself"),
        ({}, {"compute_s": {0: 1.0, 1: 0.0, 2: 1.0}}, "worker 1 takes no virtual time and worker 0 does"),
        ({}, {"compute_s": {0: 1.0, 1: 1.0}}, "seconds names no time for node 2"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_with_the_reason(settings, options, message):
    net = small_model.net()
    with pytest.raises(ValueError, match=message):
        Simulation(net, torch.optim.SGD(net.parameters(), lr=0.1), ASGD(**settings), workers=3, **options)
