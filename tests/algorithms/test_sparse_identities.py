"""Sparse methods with error feedback: exact identities with plain SGD and with each other, round by round.

Float64, to 1e-12 of the terms' size; "bit for bit" where both sides do the same arithmetic.
"""

from itertools import pairwise

import pytest
import torch

import laconic
from laconic.algorithms.lag import LAG
from laconic.algorithms.lasg import LASG
from laconic.algorithms.sasg import SASG
from laconic.algorithms.sgd import SGD
from laconic.algorithms.sparse import SparseSGD
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_mv_ad import SSGDMVAD
from laconic.algorithms.ssgd_mv_rs import SSGDMVRS
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.compressors import n_selected_by_block
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.errors import ContractError
from laconic.protocol.round_inputs import Inputs
from support.inputs import over_inputs
from support.simulated_run import LossyRun, Problem, Run, assert_same, linear, normal, quadratic, steady, wavy

LAYERS = (20, 1, 16)


def named(algorithm):
    """The id of an algorithm in a test: its name and its settings."""
    default = type(algorithm)().settings()
    return "-".join([algorithm.name, *(f"{k}={v}" for k, v in algorithm.settings().items() if v != default[k])])


# Everything sent and no skips: plain SGD.

LOSSLESS = [
    SparseSGD(density=1.0),
    SparseSGD(density=1.0, blocks="vector", code="entropy"),
    LAG(alpha=0.0, warm_up_rounds=0),
    LASG(alpha=0.0, warm_up_rounds=0),
    LASG(alpha=0.0, warm_up_rounds=0, rule="wk1"),
    LASG(alpha=0.0, warm_up_rounds=0, rule="ps"),
    LASG(alpha=0.0, warm_up_rounds=0, rule="pse"),
    SASG(density=1.0, alpha=0.0, warm_up_rounds=0),
    SASG(density=1.0, alpha=0.0, warm_up_rounds=0, skip_error="corrected"),
    SSGDTopK(density=1.0),
    SSGDMV(density=1.0),
    SSGDMVAD(density=1.0),
    SSGDMVRS(density=1.0),
]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", LOSSLESS, ids=named)
@over_inputs("lr", (steady, wavy))
def test_with_everything_sent_every_method_walks_sgds_path(algorithm, lr):
    run = Run(algorithm, quadratic(), lr=lr, layers=LAYERS)
    assert_same(run.path(20), Run(SGD(), quadratic(), lr=lr).path(20))
    assert not run.state().residual_out.any()
    assert all(worker.meter.counts["up"].skips == 0 for worker in run.sim.workers)


@pytest.mark.parametrize(
    "algorithm", [a for a in LOSSLESS if isinstance(a, LAG | LASG)], ids=named
)  # the others multiply by the learning rate before they add
def test_lazy_methods_without_a_threshold_are_sgd_bit_for_bit(algorithm):
    path = Run(SGD(), quadratic(), lr=wavy, layout="rank0").path(20)
    assert torch.equal(Run(algorithm, quadratic(), lr=wavy).path(20), path)


@pytest.mark.parametrize("blocks", ["layer", "vector"])
def test_sasg_without_skips_is_sparse_bit_for_bit(blocks):
    sasg = SASG(density=0.25, alpha=0.0, blocks=blocks, warm_up_rounds=0)
    runs = [
        Run(algorithm, quadratic(), lr=wavy, layers=LAYERS)
        for algorithm in (sasg, SparseSGD(density=0.25, blocks=blocks))
    ]
    for one, other in zip(*(run.states(25) for run in runs), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.residuals, other.residuals)
    assert runs[0].state().residuals.any()


# The parameters and residuals together follow SGD.

SPARSE = [
    SparseSGD(density=0.25),
    SparseSGD(k=1, blocks="vector", code="rice"),
    SparseSGD(k=3, code="list"),
]


def follows_sgd_less_its_residuals(run, rounds):
    """x - avg e moves by -lr avg g; the residuals contain the learning rate."""
    for now, then in pairwise(run.states(rounds)):
        step = now.lr * now.gradients.mean(0)
        assert_same(
            then.x - then.residual_out, now.x - now.residual_out - step, step, now.residual_out, then.residual_out
        )
    assert run.state().residuals.any()


@pytest.mark.parametrize("layout", ["rank0", "sharded"])
@pytest.mark.parametrize("algorithm", SPARSE, ids=named)
@over_inputs("lr", (steady, wavy))
def test_sparse_with_its_residuals_applied_is_sgd(algorithm, layout, lr):
    follows_sgd_less_its_residuals(Run(algorithm, quadratic(), lr=lr, layout=layout, layers=LAYERS), rounds=12)


def test_one_worker_of_sparse_less_its_residual_walks_sgds_path_where_the_gradient_does_not_depend_on_the_past():
    gradients = Problem(
        start=normal(37, key=4), n_workers=1, gradient=lambda rank, t, x: normal(37, key=100 + 2 * t), gap=float
    )
    run = Run(SparseSGD(density=0.1), gradients, lr=wavy)
    path = []
    for state in run.states(30):
        path.append(state.x - state.residuals[0])
    assert_same(torch.stack(path[1:]), Run(SGD(), gradients, lr=wavy).path(30), to=1e-11)


CHANGES = [
    cls(density=0.2, bits=bits, **more)
    for bits in (32, 4, 1)
    for cls, more in ((SSGDTopK, {}), (SSGDMV, {}), (SSGDMV, {"ties": "index"}), (SSGDMVRS, {}))
] + [SSGDMVAD(density=0.2, swap_density=swap, bits=bits) for bits in (32, 4) for swap in (0.0, 0.05)]


def with_residuals_moves_by_the_mean_change(run, rounds):
    """x + avg e moves by avg Del, which is -lr avg g with one local step."""
    for now, then in pairwise(run.states(rounds)):
        change = -now.lr * now.gradients.mean(0)
        assert_same(
            then.x + then.residual_out, now.x + now.residual_out + change, change, now.residual_out, then.residual_out
        )
    assert run.state().residuals.any()


@pytest.mark.parametrize("algorithm", CHANGES, ids=named)
@over_inputs("lr", (steady, wavy))
def test_an_ssgd_model_and_its_residuals_together_move_by_the_mean_change(algorithm, lr):
    with_residuals_moves_by_the_mean_change(Run(algorithm, quadratic(n_workers=3), lr=lr), rounds=10)


@pytest.mark.parametrize("algorithm", [a for a in CHANGES if isinstance(a, SSGDMV) and a.bits == 32], ids=named)
def test_without_a_server_too_model_and_residuals_move_by_the_mean_change(algorithm):
    with_residuals_moves_by_the_mean_change(
        Run(algorithm, quadratic(n_workers=3), lr=wavy, layout="allreduce"), rounds=10
    )


def test_after_dense_rounds_without_a_residual_model_and_residuals_move_by_the_mean_change():
    run = Run(SSGDMV(density=0.2, dense_rounds=5), quadratic(), lr=wavy)
    assert_same(run.path(5), Run(SGD(), quadratic(), lr=wavy).path(5))
    assert not run.state().residuals.any()
    with_residuals_moves_by_the_mean_change(run, rounds=10)


@pytest.mark.parametrize("algorithm", [SparseSGD(density=0.1), *CHANGES[:4], *CHANGES[-4:]], ids=named)
def test_after_three_local_steps_model_and_residuals_move_by_the_mean_of_what_the_steps_changed(algorithm):
    n, lr = 3, 0.05
    problem = quadratic(n_workers=n)
    x = torch.nn.Parameter(problem.start.clone())
    simulation = laconic.Simulation(
        torch.nn.ParameterList([x]), torch.optim.SGD([x], lr=lr), algorithm, workers=n, local_steps=3
    )
    sign = -1 if algorithm.consumes == "gradient" else 1

    def together():
        residuals = [worker.me.memory["residual"] for worker in simulation.driver.workers]
        return x.detach() + sign * torch.stack(residuals).mean(0)

    for round_ in range(8):
        changes = []
        for rank in range(n):
            here = x.detach().clone()
            for t in range(3 * round_, 3 * round_ + 3):
                here -= lr * problem.gradient(rank, t, here)
            changes.append(here - x.detach())
        expected = together() + torch.stack(changes).mean(0)
        for t in range(3 * round_, 3 * round_ + 3):
            simulation.step(lambda rank, t=t: (x * problem.gradient(rank, t, x.detach())).sum())
        assert_same(together(), expected)
    assert simulation.traffic.rounds == 8
    assert any(worker.me.memory["residual"].any() for worker in simulation.driver.workers)


# Packets that are not delivered become residual.


def some_get_lost(t):
    return [{1}, set(), {0, 2}, {0, 1, 2}][t % 4]


@pytest.mark.parametrize("algorithm", SPARSE, ids=named)
def test_sparse_keeps_what_was_lost_as_residual(algorithm):
    run = LossyRun(algorithm, quadratic(n_workers=3), some_get_lost, lr=wavy, layers=LAYERS)
    follows_sgd_less_its_residuals(run, rounds=12)


@pytest.mark.parametrize("algorithm", CHANGES, ids=named)
def test_ssgd_keeps_what_was_lost_as_residual(algorithm):
    run = LossyRun(algorithm, quadratic(n_workers=3), some_get_lost, lr=wavy)
    with_residuals_moves_by_the_mean_change(run, rounds=12)


# How large residuals get.


def test_what_a_worker_does_not_send_is_bounded_by_the_share_of_the_worst_layer():
    """||T_k(v) - v||^2 <= (1 - k/d) ||v||^2, and by layers with the smallest k_l / d_l."""
    for blocks, shares in (("vector", [(37, 9)]), ("layer", [(20, 5), (1, 1), (16, 4)])):
        algorithm = SparseSGD(density=0.25, blocks=blocks)
        assert n_selected_by_block(37, density=0.25, blocks=blocks, spec=ModelSpec.of_sizes(*LAYERS)) == shares
        delta = min(k / d for d, k in shares)
        for now, then in pairwise(Run(algorithm, quadratic(), lr=wavy, layers=LAYERS).states(20)):
            corrected_gradients = now.lr * now.gradients + now.residuals
            left, full = then.residuals.square().sum(1), corrected_gradients.square().sum(1)
            assert (left <= (1 - delta) * full * (1 + 1e-12)).all()
            assert ((corrected_gradients - then.residuals).count_nonzero(1) == sum(k for _, k in shares)).all()


def test_equal_magnitudes_reach_that_bound_exactly():
    run = Run(SparseSGD(k=9, blocks="vector"), linear(torch.ones(37, dtype=torch.float64), n_workers=1), lr=1.0)
    run.step()
    assert float(run.state().residuals.square().sum()) == 37 - 9


@pytest.mark.parametrize("wander", [0.0, 1.0], ids=["constant-slope", "any-slope"])
def test_sasg_lemma_2_residuals_stay_below_what_bounded_gradients_allow(wander):
    """||g|| <= B always, so ||e||^2 <= 4 (1 - delta) / delta^2 eta^2 B^2, skips or not."""
    bound, lr = 3.0, 0.1

    def gradient(rank, t, x):
        slope = torch.ones(37, dtype=torch.float64) + wander * normal(37, key=2 * (t + 1000 * rank))
        return bound * slope / slope.norm()

    problem = Problem(start=torch.zeros(37, dtype=torch.float64), n_workers=3, gradient=gradient, gap=float)
    run = Run(SASG(density=0.25, warm_up_rounds=1, max_delay=2), problem, lr=lr, layers=LAYERS)
    delta = 0.25
    residual_out = [state.residuals.square().sum(1).max().item() for state in run.states(80)]
    allowed = 4 * (1 - delta) / delta**2 * lr**2 * bound**2
    assert max(residual_out) <= allowed
    assert max(residual_out) > allowed / 100
    assert run.sim.workers[0].meter.counts["up"].skips == 40  # a gradient that does not depend on x never changes


# Settings of k, density and bits that make no sense.


@pytest.mark.parametrize("cls", [SparseSGD, SASG, SSGDTopK, SSGDMV, SSGDMVAD, SSGDMVRS], ids=lambda cls: cls.name)
def test_k_densities_and_bits_out_of_range_are_refused_by_name_and_bound(cls):
    for settings in ({"density": 0.0}, {"density": -0.1}, {"density": 1.5}, {"density": float("nan")}):
        with pytest.raises(ValueError, match=rf"{cls.name}: density={settings['density']} must be in \(0, 1\]"):
            cls(**settings)
    with pytest.raises(ValueError, match=rf"{cls.name}: k=0 must be in \[1, inf\)"):
        cls(k=0)
    with pytest.raises(TypeError, match=rf"{cls.name}: k=2.5 must be a whole number"):
        cls(k=2.5)
    vector = {"blocks": "vector"} if cls in (SparseSGD, SASG) else {}
    with pytest.raises(ValueError, match=r"k=38 must be in 1 .. d=37"):
        Run(cls(k=38, **vector), quadratic())
    with pytest.raises(ValueError, match=r"density=0.02 of d=37 is no element; make it at least 1/37"):
        Run(cls(density=0.02, **vector), quadratic())


@pytest.mark.parametrize("cls", [SSGDTopK, SSGDMV, SSGDMVAD, SSGDMVRS], ids=lambda cls: cls.name)
def test_bits_between_the_quantizers_and_full_floats_are_refused(cls):
    for bits in (1, 16, 32):
        assert cls(bits=bits).bits == bits
    for bits in (0, 33):
        with pytest.raises(ValueError, match=rf"{cls.name}: bits={bits} must be in \[1, 32\]"):
            cls(bits=bits)
    for bits in (17, 31):
        with pytest.raises(ValueError, match=rf"{cls.name}: bits={bits} must be in 1 .. 16, or 32"):
            cls(bits=bits)


def test_a_second_gradient_without_a_closure_is_refused():
    driver = Simulated(SASG(density=0.5, warm_up_rounds=1), spec=ModelSpec.of_sizes(8), n_workers=2)
    driver.round(lambda rank: Inputs(vector=torch.ones(8), parameters=torch.zeros(8)), lr=0.1)
    moved = Inputs(vector=torch.ones(8), parameters=torch.ones(8))
    with pytest.raises(ContractError, match="gradient_at needs a closure"):
        driver.round(lambda rank: moved, lr=0.1)
