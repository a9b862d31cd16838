"""LAG, LASG and SASG: which workers skip and when, identities that hold meanwhile, and convergence."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import laconic
from laconic.algorithms.lag import LAG
from laconic.algorithms.lasg import LASG
from laconic.algorithms.sasg import SASG
from support import small_model
from support.inputs import over_inputs
from support.simulated_run import LossyRun, Problem, Run, assert_same, quadratic, steady, wavy

LAYERS = (20, 1, 16)
RULES = ("wk2", "wk1", "ps", "pse")
SKIPPING = {"alpha": 0.2, "warm_up_rounds": 2, "max_delay": 5}


def uneven(noise=0.3):
    """Workers whose gradients change at different speeds, so that they do not all skip together."""
    base = quadratic(n_workers=3, noise=noise)
    return replace(base, gradient=lambda rank, t, x: (0.4 + 0.6 * rank) * base.gradient(rank, t, x))


def skips(run):
    """How often each worker has skipped."""
    return [worker.meter.counts["up"].skips for worker in run.sim.workers]


def who_skips(run, rounds):
    """Whether each worker skipped in each of the next rounds: (rounds, n) bool."""
    rows = []
    for _ in range(rounds):
        before = skips(run)
        run.step()
        rows.append([now > then for now, then in zip(skips(run), before, strict=True)])
    return torch.tensor(rows)


def stored_in(run, rank):
    """Worker `rank`'s last upload as SASG's server stores it, (d,)."""
    memory = run.sim.servers[0].view.memory
    full = torch.zeros_like(run.x)
    full[memory[f"positions.{rank}"].long()] = memory[f"values.{rank}"]
    return full


# Everything sent.


@pytest.mark.parametrize("blocks", ["layer", "vector"])
def test_sasg_that_sends_every_value_is_lasg_with_the_same_skips(blocks):
    sasg = Run(SASG(density=1.0, blocks=blocks, **SKIPPING), uneven(), lr=steady, layers=LAYERS)
    lasg = Run(LASG(**SKIPPING), uneven(), lr=steady, layers=LAYERS)
    for _ in range(40):
        assert torch.equal(who_skips(sasg, 1), who_skips(lasg, 1))
        assert_same(sasg.x, lasg.x)
    assert min(skips(sasg)) > 5
    assert not sasg.state().residual_out.any()


@pytest.mark.parametrize("algorithm", [LASG(**SKIPPING), LAG(**SKIPPING)], ids=lambda a: a.name)
@over_inputs("lr", (steady, wavy))
def test_the_server_steps_with_the_mean_of_the_gradients_that_it_received_last(algorithm, lr):
    run = Run(algorithm, uneven(noise=0.0 if isinstance(algorithm, LAG) else 0.3), lr=lr)
    latest = [torch.zeros(37, dtype=torch.float64)] * 3
    for _ in range(40):
        now = run.state()
        skipped = who_skips(run, 1)[0]
        latest = [last if skip else new for last, new, skip in zip(latest, now.gradients, skipped, strict=True)]
        assert_same(run.x, now.x - now.lr * torch.stack(latest).mean(0))
    assert min(skips(run)) > 5


# SASG's virtual iterate, nu = x - avg e.


def residuals(run, rounds, *, stored_for_skippers, lost=lambda t: set()):
    """nu' - nu + (1/N)(sum over uploaders of eta g + sum over skippers of their share), over the size of its terms.

    A skipper's share is what the server has stored of it, or eta g of its last upload as equation (16) has it. It is
    zero if the control frame SKIP is lost. Yields (residual, number of skips).
    """
    n = run.problem.n_workers
    uploaded = [torch.zeros_like(run.x)] * n  # eta g of each worker's last upload that was delivered
    for _ in range(rounds):
        now, missing = run.state(), lost(run.t)
        skipped = who_skips(run, 1)[0]
        then, share = run.state(), torch.zeros_like(run.x)
        for rank in range(n):
            mine = now.lr * now.gradients[rank]
            if not skipped[rank]:
                share = share + mine
                uploaded[rank] = uploaded[rank] if rank in missing else mine
            elif rank not in missing:
                share = share + (stored_in(run, rank) if stored_for_skippers else uploaded[rank])
        expected = now.x - now.residual_out - share / n
        size = max(float(term.abs().max()) for term in (then.x, then.residual_out, now.residual_out, share / n))
        yield float((then.x - then.residual_out - expected).abs().max()) / size, int(skipped.sum())


@pytest.mark.parametrize("blocks", ["layer", "vector"])
@over_inputs("lr", (steady, wavy))
def test_sasgs_virtual_iterate_moves_by_what_uploaders_have_and_what_is_stored_of_skippers(blocks, lr):
    run = Run(SASG(density=0.25, blocks=blocks, **SKIPPING), uneven(), lr=lr, layers=LAYERS)
    found = list(residuals(run, 40, stored_for_skippers=True))
    assert max(residual for residual, _ in found) <= 1e-12
    assert {skipped for _, skipped in found} >= {0, 1, 2, 3}
    assert run.state().residuals.any()


@over_inputs("lr", (steady, wavy))
def test_equation_16_as_printed_fails_exactly_where_a_worker_skips(lr):
    run = Run(SASG(density=0.25, **SKIPPING), uneven(), lr=lr, layers=LAYERS)
    found = list(residuals(run, 40, stored_for_skippers=False))
    assert [residual > 1e-6 for residual, _ in found] == [skipped > 0 for _, skipped in found]
    assert max(residual for residual, _ in found) > 1e-2
    assert max(residual for residual, skipped in found if not skipped) <= 1e-12


@pytest.mark.parametrize(
    "algorithm",
    [SASG(density=1.0, **SKIPPING), SASG(density=0.25, skip_error="corrected", **SKIPPING)],
    ids=["everything-sent", "corrected"],
)
@over_inputs("lr", (steady, wavy))
def test_equation_16_holds_where_everything_is_sent_or_skippers_keep_the_difference(algorithm, lr):
    run = Run(algorithm, uneven(), lr=lr, layers=LAYERS)
    found = list(residuals(run, 40, stored_for_skippers=False))
    assert max(residual for residual, _ in found) <= 1e-12
    assert sum(skipped for _, skipped in found) > 20


def some_get_lost(t):
    return [{1}, set(), {0, 2}, set(), set(), {0, 1, 2}][t % 6]


@pytest.mark.parametrize("skip_error", ["paper", "corrected"])
def test_sasg_keeps_an_upload_that_was_lost_as_residual_and_nothing_for_a_lost_skip(skip_error):
    algorithm = SASG(density=0.25, skip_error=skip_error, **SKIPPING)
    run = LossyRun(algorithm, uneven(), some_get_lost, lr=wavy, layers=LAYERS)
    found = list(residuals(run, 60, stored_for_skippers=skip_error == "paper", lost=some_get_lost))
    assert max(residual for residual, _ in found) <= 1e-12
    assert sum(skipped for _, skipped in found) > 20


@pytest.mark.parametrize("algorithm", [LAG(**SKIPPING), LASG(**SKIPPING)], ids=lambda a: a.name)
def test_a_lazy_worker_whose_packet_was_not_delivered_does_not_take_its_upload_for_stored(algorithm):
    """The gap is measured from what the server has, so only a delivered upload replaces the one in memory."""
    run = LossyRun(algorithm, uneven(), lambda t: {1} if t < 4 else set(), lr=steady)
    run.path(4)
    memories = [worker.me.memory for worker in run.sim.workers]
    assert "uploaded_parameters" in memories[0]
    assert "uploaded_parameters" not in memories[1]
    assert not who_skips(run, 1)[0, 1]
    assert "uploaded_parameters" in memories[1]


# Which workers skip, and when.

FAMILY = [LAG(**SKIPPING), *(LASG(rule=rule, **SKIPPING) for rule in RULES), SASG(density=0.25, **SKIPPING)]
each_method = pytest.mark.parametrize("algorithm", FAMILY, ids=lambda a: f"{a.name}-{getattr(a, 'rule', '')}")


def noiseless_for(algorithm):
    """A problem without noise, since LAG is meant for full gradients."""
    return quadratic(n_workers=3, noise=0.0 if isinstance(algorithm, LAG) else 0.3)


@each_method
def test_no_upload_is_older_than_the_longest_delay_and_the_initial_rounds_have_no_skip(algorithm):
    for longest, n_warm_up in ((5, 2), (3, 7), (1, 0)):
        limited = replace(algorithm, max_delay=longest, warm_up_rounds=n_warm_up, alpha=50.0)
        skipped = who_skips(Run(limited, noiseless_for(algorithm), lr=steady), 40)
        assert not skipped[: max(n_warm_up, 1)].any()
        for mine in skipped.T:
            uploads = [-1, *(~mine).nonzero().flatten().tolist(), 40]
            gaps = {then - now for now, then in pairwise(uploads)}
            assert max(gaps) == longest


@each_method
def test_every_rule_skips_now_and_then_and_comes_near_the_best_point(algorithm):
    problem = noiseless_for(algorithm)
    run = Run(algorithm, problem, lr=lambda t: 0.15 / (1 + t / 30))
    skipped = who_skips(run, 150)
    assert 0 < skipped.float().mean() < 1
    assert (skipped.any(0) & (~skipped).any(0)).all()
    assert problem.gap(run.x) < problem.gap(problem.start) / 50


@pytest.mark.slow
@each_method
def test_more_alpha_means_fewer_uploads(algorithm):
    problem = noiseless_for(algorithm)
    uploads = []
    for alpha in (0.0, 0.01, 0.05, 0.2, 20.0):
        run = Run(replace(algorithm, alpha=alpha), problem, lr=steady)
        run.path(40)
        uploads.append(40 * 3 - sum(skips(run)))
    assert uploads[0] == 40 * 3
    for fewer, more in pairwise(reversed(uploads)):
        assert fewer <= 1.05 * more + 1
    assert uploads[-1] < 0.5 * uploads[0]


def test_lasgs_window_counts_that_many_movements_beginning_with_the_newest():
    run = Run(LASG(window=3, alpha=0.0), quadratic(n_workers=2), lr=wavy)
    points = [run.x, *run.path(6)]
    expected = [float((b - a).square().sum()) for a, b in pairwise(points[:-1])][::-1][:3]
    found = run.sim.workers[1].me.memory["squared_steps"]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_threshold_by_hand():
    """N = 2, lr 1/2, alpha 3, and a step of length 5: 3 / (1/4) x 25 / 4 = 75."""
    thresholds = []

    class WatchedMovement(LASG):
        def watch(self, me):
            thresholds.append(super().watch(me))
            return thresholds[-1]

    slope = torch.tensor([6.0, 8.0], dtype=torch.float64)
    problem = Problem(start=torch.zeros(2, dtype=torch.float64), n_workers=2, gradient=lambda *_: slope, gap=float)
    run = Run(WatchedMovement(alpha=3.0), problem, lr=0.5)
    run.path(2)
    assert thresholds == [0, 0, 75, 75]


@each_method
def test_a_sum_at_one_learning_rate_is_a_mean_at_n_times_the_learning_rate_with_the_same_skips(algorithm):
    runs = [
        Run(replace(algorithm, lr_convention=convention), noiseless_for(algorithm), lr=learning_rate, layers=LAYERS)
        for convention, learning_rate in (("sum", 0.02), ("mean", 0.06))
    ]
    for _ in range(30):
        rows = [who_skips(run, 1) for run in runs]
        assert torch.equal(*rows)
        assert_same(runs[0].x, runs[1].x, to=1e-11)
    assert sum(skips(runs[0])) > 0


# Convergence.


@pytest.mark.parametrize("algorithm", [LASG(alpha=0.2), SASG(alpha=0.2, density=0.25)], ids=lambda a: a.name)
@pytest.mark.slow
def test_with_a_step_of_one_over_root_t_the_mean_gradient_vanishes_as_t_grows(algorithm):
    """The analysis bounds the mean of ||grad f||^2 over T rounds by a constant over sqrt(T)."""
    problem, means = quadratic(n_workers=3), []
    exact = quadratic(n_workers=3, noise=0.0)
    for rounds in (20, 80, 320):
        run = Run(algorithm, problem, lr=0.4 / rounds**0.5)
        squares = 0.0
        for _ in range(rounds):
            full = torch.stack([exact.gradient(rank, 0, run.x) for rank in range(3)]).mean(0)
            squares += float(full.square().sum()) / rounds
            run.step()
        assert sum(skips(run)) > 0.1 * 3 * rounds
        means.append(squares)
    assert means[1] < means[0] / 1.6
    assert means[2] < means[1] / 1.6


@pytest.mark.slow
def test_the_rule_ps_asks_for_no_second_gradient():
    net = small_model.net()
    algorithm = LASG(rule="ps", smoothness=0.5, alpha=1.0, warm_up_rounds=1)
    assert not algorithm.second_gradient
    assert all(LASG(rule=rule).second_gradient for rule in RULES if rule != "ps")
    evaluations = []

    def loss_of(rank):
        evaluations.append(rank)
        return small_model.loss(net, rank, len(evaluations))

    simulation = laconic.Simulation(net, torch.optim.SGD(net.parameters(), lr=0.1), algorithm, workers=3)
    for _ in range(20):
        simulation.step(loss_of)
    assert evaluations == [0, 1, 2] * 20
    assert 0 < simulation.traffic.up.skips < 60
