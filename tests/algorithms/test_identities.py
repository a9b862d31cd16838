"""Exact identities between methods, and between a method and plain SGD, round by round.

Float64, to 1e-12 of the terms' size; "bit for bit" where both sides do the same arithmetic.
"""

import math
from itertools import pairwise

import pytest
import torch

from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sgd import SGD
from laconic.algorithms.sgd_model import ModelAveraging
from laconic.algorithms.sgd_server import GlobalReplica
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.compressors import DenseValues, Identity, ScaledSign, Sign
from laconic.policies.skip_policies import Never, RandomSkips
from support.inputs import over_inputs
from support.simulated_run import LossyRun, Problem, Run, assert_same, linear, normal, quadratic, steady, wavy

LAYERS = (20, 1, 16)


def mean(vectors):
    return vectors.mean(0)


# Plain SGD in its three forms.

VANILLA = [
    (SGD(), "allreduce"),
    (SGD(), "rank0"),
    (SGD(), "dedicated"),
    (SGD(), "sharded"),
    (ModelAveraging(), "allreduce"),
    (ModelAveraging(), "rank0"),
    (ModelAveraging(), "sharded"),
    (GlobalReplica(), "rank0"),
    (GlobalReplica(), "dedicated"),
]
each_vanilla_form = pytest.mark.parametrize(("algorithm", "layout"), VANILLA, ids=lambda v: getattr(v, "name", v))


def sgd_path(problem, rounds, lr):
    """x -= lr * mean gradient, computed without laconic: (rounds, d)."""
    x, points = problem.start, []
    for t in range(rounds):
        x = x - lr(t) * mean(torch.stack([problem.gradient(rank, t, x) for rank in range(problem.n_workers)]))
        points.append(x)
    return torch.stack(points)


@each_vanilla_form
def test_gradient_aggregation_model_aggregation_and_global_replica_walk_sgds_path(algorithm, layout):
    problem = quadratic()
    assert_same(Run(algorithm, problem, lr=wavy, layout=layout).path(20), sgd_path(problem, 20, wavy))


@pytest.mark.parametrize("algorithm", [SGD(), ModelAveraging(), GlobalReplica()], ids=lambda a: a.name)
def test_one_worker_alone_is_vanilla_sgd(algorithm):
    problem = quadratic(n_workers=1)
    assert_same(Run(algorithm, problem, lr=wavy).path(20), sgd_path(problem, 20, wavy))


def test_workers_together_are_sgd_on_the_concatenated_batch():
    n, rows, d = 4, 6, 9

    def batch(start, stop):
        """A least-squares gradient: the mean over rows first .. stop-1 of the round's samples."""

        def gradient(rank, t, x):
            samples = normal(n * rows, d + 1, key=1000 + 2 * t)[start(rank) : stop(rank)]
            points, values = samples[:, :d], samples[:, d]
            return points.T @ (points @ x - values) / len(points)

        return gradient

    def problem(n_workers, gradient):
        return Problem(start=normal(d, key=2), n_workers=n_workers, gradient=gradient, gap=lambda x: math.nan)

    apart = problem(n, batch(lambda rank: rank * rows, lambda rank: (rank + 1) * rows))
    full = problem(1, batch(lambda rank: 0, lambda rank: n * rows))
    assert_same(Run(SGD(), apart, lr=wavy).path(20), sgd_path(full, 20, wavy))


def test_error_compensation_of_a_lossless_compressor_is_sgd_bit_for_bit():
    problem = quadratic()
    compensated = Run(ECSGD(compressor=Identity(), server_compressor=Identity()), problem, lr=wavy)
    assert torch.equal(compensated.path(20), Run(SGD(), problem, lr=wavy).path(20))
    assert not compensated.state().residual_out.any()


# Methods that contain each other.


def same_bits(one, other, rounds):
    """Whether two runs agree in every bit of the model and of all memories."""
    for a, b in zip(one.states(rounds), other.states(rounds), strict=True):
        for field in ("x", "residuals", "server_residual"):
            assert torch.equal(getattr(a, field), getattr(b, field)), (field, a.t)


@pytest.mark.parametrize("layout", ["rank0", "sharded"])
def test_compskip_without_decay_and_skips_is_dropsign_bit_for_bit(layout):
    shared = {"momentum": 0.8, "keep": 0.3, "server_keep": 0.6, "c": 0.7, "server_c": 0.5}
    compskip = CompSkip(decay=1.0, skip=Never(), server_skip=Never(), **shared)
    problem = quadratic()
    runs = [Run(a, problem, lr=0.03, layout=layout) for a in (compskip, DropSign(**shared))]
    same_bits(*runs, rounds=25)
    assert runs[0].state().residual_out.any()


def test_compskip_without_any_memory_and_mask_is_signsgd_with_majority_vote_bit_for_bit():
    compskip = CompSkip(momentum=0.0, decay=0.0, keep=1.0, server_keep=1.0, skip=Never(), server_skip=Never())
    for n_workers in (4, 5):  # four may tie
        problem = quadratic(n_workers=n_workers)
        path = Run(SignSGDMajorityVote(momentum=0.0), problem, lr=wavy).path(25)
        assert torch.equal(Run(compskip, problem, lr=wavy).path(25), path)
        assert len(path.unique(dim=0)) == 25


def test_dist_ef_without_momentum_in_one_block_is_ec_sgd_with_scaled_signs_bit_for_bit():
    one_bit = ScaledSign(blocks="vector")
    problem = quadratic()
    dist_ef = Run(DistEFBlockwise(momentum=0.0, blocks="vector"), problem, lr=steady, layers=LAYERS)
    ec_sgd = Run(ECSGD(compressor=one_bit, server_compressor=one_bit), problem, lr=steady, layers=LAYERS)
    same_bits(dist_ef, ec_sgd, rounds=25)


def test_a_changing_learning_rate_separates_dist_ef_from_ec_sgd():
    problem = quadratic()
    dist_ef = Run(DistEFBlockwise(momentum=0.0), problem, lr=wavy).path(25)
    assert not torch.allclose(dist_ef, Run(ECSGD(), problem, lr=wavy).path(25), rtol=1e-3)


# The parameters and residuals together follow SGD.

COMPRESSORS = {
    "identity": Identity(),
    "bfloat16": DenseValues(value_type="bfloat16"),
    "float32": DenseValues(value_type="float32"),
    "sign": Sign(),
    "some-signs": Sign(keep=0.4),
    "scaled-vector": ScaledSign(blocks="vector"),
    "scaled-layer": ScaledSign(blocks="layer"),
    "scaled-5": ScaledSign(blocks="5"),
    "scaled-1": ScaledSign(blocks="1"),
    "scaled-1000": ScaledSign(blocks="1000"),
}


def follows_lemma_3_4_1(run, rounds):
    for now, then in pairwise(run.states(rounds)):
        lr = now.lr
        assert_same(
            then.x - lr * then.residual_out,
            now.x - lr * now.residual_out - lr * mean(now.gradients),
            lr * then.residual_out,
            lr * now.residual_out,
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPRESSORS)
@over_inputs("lr", (steady, wavy))
def test_ec_sgd_with_its_residuals_applied_is_sgd(name, lr):
    both = COMPRESSORS[name]
    algorithm = ECSGD(compressor=both, server_compressor=both)
    follows_lemma_3_4_1(Run(algorithm, quadratic(n_workers=3), lr=lr, layers=LAYERS), rounds=15)


def test_ec_sgd_may_compress_the_two_directions_differently():
    algorithm = ECSGD(compressor=Sign(keep=0.5), server_compressor=DenseValues(value_type="bfloat16"))
    run = Run(algorithm, quadratic(n_workers=3), lr=wavy, layout="sharded")
    follows_lemma_3_4_1(run, rounds=15)


def test_over_a_full_run_at_a_constant_learning_rate_ec_sgd_is_sgd_but_for_its_residual():
    states = list(Run(ECSGD(), quadratic(), lr=steady, layers=LAYERS).states(40))
    paid = steady(0) * sum(mean(state.gradients) for state in states[:-1])
    assert_same(states[-1].x - steady(0) * states[-1].residual_out, states[0].x - paid, paid, to=1e-11)


@pytest.mark.parametrize("blocks", ["vector", "layer", "7"])
def test_dist_efs_virtual_iterate_follows_momentum_sgd_at_any_learning_rate(blocks):
    run = Run(DistEFBlockwise(momentum=0.9, blocks=blocks), quadratic(), lr=wavy, layers=LAYERS)
    follows_momentum_sgd_at_any_learning_rate(run, momentum=0.9)


def follows_momentum_sgd_at_any_learning_rate(run, momentum):
    last_lr = 0.0
    for now, then in pairwise(run.states(25)):
        step = now.lr * mean(momentum * then.momenta + now.gradients)
        before, after = now.x - last_lr * now.residual_out, then.x - now.lr * then.residual_out
        assert_same(after, before - step, step, last_lr * now.residual_out, now.lr * then.residual_out)
        last_lr = now.lr


DROPSIGNS = [
    DropSign(c=0.5, server_c=0.5),
    DropSign(c=1.0, server_c=1.0, momentum=0.0, keep=0.2, server_keep=0.9),
    DropSign(c=0.1, server_c=0.1, momentum=0.6, keep=1.0, server_keep=1.0),
]


@pytest.mark.parametrize("layout", ["rank0", "sharded"])
@pytest.mark.parametrize("algorithm", DROPSIGNS)
def test_dropsign_lemma_7_its_virtual_iterate_follows_momentum_sgd(algorithm, layout):
    learning_rate = 0.03 / algorithm.c
    for now, then in pairwise(Run(algorithm, quadratic(), lr=0.03, layout=layout).states(20)):
        step = learning_rate * mean(algorithm.momentum * then.momenta + now.gradients)
        before, after = now.x - learning_rate * now.residual_out, then.x - learning_rate * then.residual_out
        assert_same(after, before - step, learning_rate * now.residual_out, learning_rate * then.residual_out, step)


@pytest.mark.parametrize("algorithm", DROPSIGNS)
def test_dropsign_lemma_8_less_its_momentum_it_follows_sgd(algorithm):
    learning_rate, mu = 0.03 / algorithm.c, algorithm.momentum
    ahead = learning_rate * mu**2 / (1 - mu)
    for now, then in pairwise(Run(algorithm, quadratic(), lr=0.03).states(20)):
        before = now.x - learning_rate * now.residual_out - ahead * mean(now.momenta)
        after = then.x - learning_rate * then.residual_out - ahead * mean(then.momenta)
        step = learning_rate / (1 - mu) * mean(now.gradients)
        assert_same(after, before - step, learning_rate * then.residual_out, ahead * mean(then.momenta), step)


COMPSKIPS = [
    CompSkip(c=0.5, server_c=0.5),
    CompSkip(c=1.0, server_c=1.0, momentum=0.0, decay=0.5, skip=RandomSkips(probability=0.8)),
    CompSkip(c=0.2, server_c=0.2, decay=1.0, server_keep=0.8, server_skip=RandomSkips(probability=0.5)),
]


def compskip_residuals(run, rounds):
    """How far each round is from CompSkip's general identity, relative to the size of its terms; then all skips."""
    algorithm = run.sim.job.algorithm
    residuals = []
    for now, then in pairwise(run.states(rounds)):
        learning_rate = now.lr / algorithm.c
        step = learning_rate * mean(algorithm.momentum * then.momenta + now.gradients)
        before, after = (
            now.x - algorithm.decay * learning_rate * now.residual_out,
            then.x - learning_rate * then.residual_out,
        )
        size = max(
            float(term.abs().max())
            for term in (now.x, learning_rate * now.residual_out, learning_rate * then.residual_out, step)
        )
        residuals.append(float((after - before + step).abs().max()) / size)
    counts = [worker.meter.counts for worker in run.sim.workers]
    return residuals, sum(count["up"].skips for count in counts), counts[0]["down"].skips


@pytest.mark.parametrize("layout", ["rank0", "sharded"])
@pytest.mark.parametrize("algorithm", COMPSKIPS)
@over_inputs("lr", (steady, wavy))
def test_compskips_general_identity_holds_with_skips_at_any_learning_rate(algorithm, layout, lr):
    run = Run(algorithm, quadratic(n_workers=3), lr=lr, layout=layout)
    residuals, worker_skips, server_skips = compskip_residuals(run, rounds=25)
    assert max(residuals) <= 1e-12
    assert worker_skips > 0
    assert server_skips > 0


def test_compskip_with_unscaled_c_breaks_the_identity_exactly_where_a_worker_skips():
    algorithm = CompSkip(c=0.5, server_c=0.5, cprime="plain")
    run = Run(algorithm, quadratic(n_workers=3), lr=0.05)
    broken, skipped, seen = [], [], 0
    for _ in range(25):
        residuals, skips, _ = compskip_residuals(run, rounds=1)
        broken.append(residuals[0] > 1e-4)
        skipped.append(0 < skips - seen < 3)  # when all skip there is nothing to scale
        seen = skips
    assert broken == skipped
    assert any(broken)
    assert not all(broken)


def test_compskip_lemma_1_with_a_growing_learning_rate_its_virtual_iterate_is_sgds():
    algorithm = CompSkip(c=0.5, server_c=0.5, momentum=0.0, decay=0.9)
    last = 0.0
    for now, then in pairwise(Run(algorithm, quadratic(), lr=lambda t: 0.01 * 0.9**-t).states(25)):
        learning_rate = now.lr / algorithm.c
        step = learning_rate * mean(now.gradients)
        before, after = now.x - last * now.residual_out, then.x - learning_rate * then.residual_out
        assert_same(after, before - step, last * now.residual_out, learning_rate * then.residual_out, step)
        last = learning_rate


# Packets that are not delivered become residual: the identities hold all the same.


def some_get_lost(t):
    return [{1}, set(), {0, 2}, {0, 1, 2}][t % 4]


@pytest.mark.parametrize("algorithm", [ECSGD(), ECSGD(compressor=Sign(), server_compressor=Identity())], ids=repr)
def test_ec_sgd_keeps_what_was_lost_as_residual(algorithm):
    follows_lemma_3_4_1(LossyRun(algorithm, quadratic(n_workers=3), some_get_lost, lr=wavy), rounds=16)


def test_dist_ef_keeps_what_was_lost_as_residual():
    run = LossyRun(DistEFBlockwise(), quadratic(n_workers=3), some_get_lost, lr=wavy)
    follows_momentum_sgd_at_any_learning_rate(run, momentum=0.9)


@pytest.mark.parametrize("algorithm", [COMPSKIPS[0], COMPSKIPS[1]], ids=["default", "mostly-skipping"])
def test_compskip_keeps_what_was_lost_as_residual(algorithm):
    run = LossyRun(algorithm, quadratic(n_workers=3), some_get_lost, lr=wavy)
    assert max(compskip_residuals(run, rounds=25)[0]) <= 1e-12


def test_dropsign_keeps_what_was_lost_as_residual():
    dropsign = DROPSIGNS[0]
    learning_rate = 0.03 / dropsign.c
    run = LossyRun(dropsign, quadratic(n_workers=3), some_get_lost, lr=0.03)
    for now, then in pairwise(run.states(16)):
        step = learning_rate * mean(dropsign.momentum * then.momenta + now.gradients)
        assert_same(
            then.x - learning_rate * then.residual_out,
            now.x - learning_rate * now.residual_out - step,
            learning_rate * then.residual_out,
            step,
        )


def test_the_residual_of_one_worker_by_hand():
    """d = 2, one worker, slope (3, -1), one scale: 2 sgn is sent, residual (1, 1), next corrected gradient (4, 0)."""
    one_bit = ScaledSign(blocks="vector")
    algorithm = ECSGD(compressor=one_bit, server_compressor=Identity())
    slope = torch.tensor([3.0, -1.0], dtype=torch.float64)
    run = Run(algorithm, linear(slope, n_workers=1), lr=1.0)
    assert run.step().tolist() == [2, -2]
    assert run.state().residuals.tolist() == [[1, 1]]
    assert run.step().tolist() == [2, 2]
    assert run.state().residuals.tolist() == [[2, -2]]
    assert run.x.tolist() == [-4, 0]


def test_signums_momentum_is_a_running_mean_by_hand():
    """A constant slope of 8 and mu = 1/2: 4, 6, 7."""
    run = Run(SignSGDMajorityVote(momentum=0.5), linear(torch.full((1,), 8.0, dtype=torch.float64)))
    for expected in (4, 6, 7):
        run.step()
        assert run.state().momenta.tolist() == [[expected], [expected]]
