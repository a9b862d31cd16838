"""What the papers' analyses predict, measured in the simulator."""

from dataclasses import dataclass

import pytest
import torch

from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sgd import SGD
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.compressors import COMPRESSORS, Identity, ScaledSign, dense
from laconic.policies.skip_policies import RandomSkips
from laconic.random_keys import make_key
from support.simulated_run import Problem, Run, linear, logistic, normal, quadratic

# Descent.


def test_gradient_descent_at_learning_rate_one_over_l_goes_down_by_what_the_gradient_promises_or_more():
    smoothness = 1.5  # quadratic's largest curvature
    problem = quadratic(noise=0.0)
    states = list(Run(SGD(), problem, lr=1 / smoothness).states(30))
    gaps = [problem.gap(state.x) for state in states]
    squares = [float(state.gradients.mean(0).square().sum()) for state in states]
    for t in range(20):  # after that, rounding
        assert gaps[t + 1] <= gaps[t] - squares[t] / (2 * smoothness) * (1 - 1e-12)
    for rounds in (1, 5, 30):
        assert sum(squares[:rounds]) / rounds <= 2 * smoothness * gaps[0] / rounds


# Linear speed-up.


@pytest.mark.slow
@pytest.mark.parametrize(("n_workers", "printed"), [(1, 0.05263), (4, 0.01316), (16, 0.003289)])
def test_the_stationary_variance_is_exactly_one_nth_of_one_workers(n_workers, printed):
    """Every parameter is an independent run: curvature a, unit noise; Var(x) = eta / (N a (2 - eta a))."""
    eta, a, d = 0.1, 1.0, 4000

    def gradient(rank, t, x):
        return a * x + normal(d, key=make_key(0, "data", rank, t, "noise"))

    start = torch.zeros(d, dtype=torch.float64)
    run = Run(SGD(), Problem(start=start, n_workers=n_workers, gradient=gradient, gap=float), lr=eta)
    run.path(60)  # the start is forgotten to 0.9^60
    apart, looks = 30, 4  # the correlation of successive samples is 0.9^30
    squares = torch.cat([run.path(apart)[-1].square() for _ in range(looks)])
    exact = eta / (n_workers * a * (2 - eta * a))
    assert exact == pytest.approx(printed, rel=1e-3)
    standard_error = exact * (2 / squares.numel()) ** 0.5
    assert float(squares.mean()) == pytest.approx(exact, abs=4 * standard_error)


# Error compensation.

STEP = 0.5


class Grid(Identity):
    """Rounds every value to a multiple of STEP: no error is above STEP / 2."""

    def __call__(self, vector, *, spec=None, key=0, offset=0):
        return dense(torch.round(vector / STEP) * STEP, offset=offset)


@pytest.fixture(autouse=True)
def grid_is_entered(monkeypatch):
    """Register the compressor: methods refuse those that have no name."""
    monkeypatch.setitem(COMPRESSORS, "test-grid", Grid)


@dataclass(frozen=True, kw_only=True)
class Forgetful(ECSGD):
    """The same compressors without error feedback."""

    def work(self, me):
        reply = yield self.compressor(me.gradient, spec=me.spec)
        return reply.dense()

    def serve(self, server, inbox):
        return self.server_compressor(inbox.mean(), spec=server.spec)


def mean_gap(run, *, rounds, last):
    """The mean of the gap over the last of `rounds` rounds; that of one iterate is too noisy."""
    path = run.path(rounds)[-last:]
    return sum(run.problem.gap(x) for x in path) / last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coarse", "lr"), [(Grid(), 0.1), (ScaledSign(blocks="vector"), 0.02)], ids=["grid", "scaled-sign"]
)
def test_error_feedback_takes_a_coarse_compressor_far_below_its_own_floor(coarse, lr):
    problem = quadratic(noise=0.05, n_workers=3)
    compensated, forgetful = (
        mean_gap(Run(kind(compressor=coarse, server_compressor=coarse), problem, lr=lr), rounds=250, last=30)
        for kind in (ECSGD, Forgetful)
    )
    assert compensated < forgetful / 5
    assert compensated < problem.gap(problem.start) / 100


def test_the_residual_stays_below_twice_one_compressors_error():
    both = ECSGD(compressor=Grid(), server_compressor=Grid())
    run = Run(both, quadratic(n_workers=3), lr=0.1)
    error_square = run.problem.d * (STEP / 2) ** 2  # sigma'^2 of the monograph
    residual_out = [float(state.residual_out.square().sum()) for state in run.states(60)]
    assert max(residual_out) <= 4 * error_square
    assert max(residual_out) > error_square / 10


# Memory on a constant gradient.


def worker_residuals(algorithm, slope, *, rounds, n_workers, d):
    """The workers' residuals on a constant gradient after 100 rounds, when momentum has converged: (rounds, n, d)."""
    run = Run(algorithm, linear(torch.full((d,), slope, dtype=torch.float64), n_workers=n_workers), lr=1e-3)
    run.path(100)
    residuals = []
    for _ in range(rounds):
        run.step()
        residuals.append(torch.stack([worker.me.memory["residual"] for worker in run.sim.workers]))
    return torch.stack(residuals)


@pytest.mark.slow
def test_dropsign_residuals_grow_by_what_the_selected_signs_cannot_drain():
    """|g|/(1-mu) - c beta = 0.01 - 0.0018 per round."""
    rounds, n, d = 120, 2, 2000
    residuals = worker_residuals(DropSign(momentum=0.9, c=6e-3, keep=0.3), 1e-3, rounds=rounds + 1, n_workers=n, d=d)
    drift = float((residuals[-1] - residuals[0]).mean()) / rounds
    standard_error = 6e-3 * (0.3 * 0.7 / (rounds * n * d)) ** 0.5
    assert drift == pytest.approx(8.2e-3, abs=4 * standard_error)


@pytest.mark.slow
def test_compskip_residuals_converge_where_decay_balances_inflow():
    """(|u| - c beta (1 - p_w)) / (1 - gamma) = (0.01 - 0.00126) / 0.1."""
    rounds, n = 200, 4
    algorithm = CompSkip(momentum=0.9, decay=0.9, c=6e-3, server_c=6e-3, keep=0.3, skip=RandomSkips(probability=0.3))
    residuals = worker_residuals(algorithm, 1e-3, rounds=rounds, n_workers=n, d=500)
    standard_error = (
        0.3 * 6e-3 * (0.3 * 0.7 / (rounds * n)) ** 0.5 / (1 - 0.9)
    )  # variance of the skips, which all parameters share
    assert float(residuals.mean()) == pytest.approx(0.0874, abs=4 * standard_error)
    assert standard_error < 0.01 * 0.0874


@pytest.mark.slow
def test_dropsign_residuals_stay_bounded_where_the_signs_can_drain_them():
    """|u| = 1e-3 is below c beta = 1.8e-3. A chain over multiples of u has mean 3.498 u where p never is 0."""
    residuals = worker_residuals(DropSign(momentum=0.9, c=6e-3, keep=0.3), 1e-4, rounds=150, n_workers=2, d=4000)
    assert float(residuals.mean()) == pytest.approx(3.5e-3, abs=2e-4)
    assert float(residuals[:, :, :].abs().max()) < 0.08  # the chain is above 80 u with probability 2e-10


# Calibration: logistic regression, n=2000, d=20, N=8, B=10. The printed gaps are after 2000 rounds, with margin 5.

ONE = {"c": 1.0, "server_c": 1.0}
CALIBRATION = {
    "sgd": (SGD(), 0.2, 0.0016),
    "ec-sgd": (ECSGD(compressor=ScaledSign(), server_compressor=ScaledSign()), 0.2, 0.0018),
    "signsgd-mv": (SignSGDMajorityVote(momentum=0.0), 0.003, 0.040),
    "compskip": (CompSkip(**ONE), 0.01, 0.0004),
    "dropsign": (DropSign(**ONE), 0.01, 0.0004),
    "dropsign, c too small": (DropSign(c=0.1, server_c=0.1), 0.005, 0.12),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", CALIBRATION)
def test_the_calibration_run_comes_as_near_as_it_did_in_numpy(name):
    algorithm, lr, printed = CALIBRATION[name]
    assert mean_gap(Run(algorithm, logistic(), lr=lr), rounds=2000, last=200) < 5 * printed


@pytest.mark.nightly
def test_majority_vote_has_a_floor_that_error_compensation_has_not():
    vote, compensated = (
        mean_gap(Run(algorithm, logistic(), lr=lr), rounds=2000, last=200)
        for algorithm, lr, _ in (CALIBRATION["signsgd-mv"], CALIBRATION["ec-sgd"])
    )
    assert vote > 10 * compensated


SHORTENED = {name: CALIBRATION[name] for name in ("sgd", "ec-sgd", "signsgd-mv")} | {
    "compskip": (CompSkip(c=2.0, server_c=2.0), 0.06, 0.0016),  # at three times the learning rate, with the gap of SGD
    "dropsign": (DropSign(c=2.0, server_c=2.0), 0.06, 0.0016),
}


@pytest.fixture(scope="module")
def shortened():
    """Two hundred rounds instead of two thousand: name -> (mean gap of the last fifty, largest residual)."""
    problem, outcome = logistic(), {}
    for name, (algorithm, lr, _) in SHORTENED.items():
        run = Run(algorithm, problem, lr=lr)
        gap, largest = 0.0, 0.0
        for t in range(200):
            run.step()
            gap += problem.gap(run.x) / 50 if t >= 150 else 0.0
            largest = max(largest, *(float(worker.me.memory["residual"].abs().max()) for worker in run.sim.workers))
        outcome[name] = (gap, largest)
    return outcome


@pytest.mark.slow
@pytest.mark.xdist_group("shortened")
@pytest.mark.parametrize("name", SHORTENED)
def test_a_shortened_calibration_run_is_within_its_margin(shortened, name):
    assert shortened[name][0] < 5 * SHORTENED[name][2]


@pytest.mark.slow
@pytest.mark.xdist_group("shortened")
def test_decay_keeps_compskips_residuals_well_below_dropsigns(shortened):
    assert shortened["compskip"][1] < shortened["dropsign"][1] / 1.5
