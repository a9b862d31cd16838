"""Options for what the papers' authors do otherwise: docs/methods.md, "Conventions"."""

import pytest
import torch

import laconic
from laconic.contract import ModelSpec
from support.simulated_run import Run, assert_same, quadratic, steady

SKIPPING = {"warm_up_rounds": 2, "max_delay": 50}


def falling(t):
    """A learning rate that falls to a tenth once."""
    return 0.1 if t < 12 else 0.01


def skips(run):
    return [worker.meter.counts["up"].skips for worker in run.sim.workers]


def skips_by_round(algorithm, rounds):
    run, found = Run(algorithm, quadratic(n_workers=3), lr=falling), []
    for _ in range(rounds):
        before = sum(skips(run))
        run.step()
        found.append(sum(skips(run)) - before)
    return found


# K = ceil(phi d).


def test_k_and_the_swaps_are_rounded_up_on_request_and_down_otherwise():
    for cls in (laconic.SSGDTopK, laconic.SSGDMV, laconic.SSGDMVRS):
        assert [cls(density=0.01, rounding=rounding).n_selected(11_173_962) for rounding in ("floor", "ceil")] == [
            111739,
            111740,
        ]
        assert [cls(density=0.25, rounding=rounding).n_selected(400) for rounding in ("floor", "ceil")] == [100, 100]
    algorithms = [laconic.SSGDMVAD(density=0.01, rounding=rounding) for rounding in ("floor", "ceil")]
    assert [algorithm.swaps(11_173_962) for algorithm in algorithms] == [11173, 11174]
    assert laconic.SSGDMV(density=0.001, rounding="ceil").n_selected(10) == 1
    with pytest.raises(ValueError, match="is no element"):
        laconic.SSGDMV(density=0.001).n_selected(10)


@pytest.mark.slow
def test_what_is_rounded_up_is_sent():
    run = Run(laconic.SSGDMV(density=0.26, rounding="ceil"), quadratic(d=37))
    applied = run.step()
    assert int((applied != 0).sum()) == 10  # 0.26 * 37 = 9.62


# The residual where the learning rate falls.


@pytest.mark.parametrize("name", ["ssgd-topk", "ssgd-mv", "ssgd-mv-rs", "ssgd-mv-ad"])
def test_a_residual_is_scaled_in_the_round_whose_learning_rate_has_fallen_and_in_no_other(name):
    cls = laconic.ALGORITHMS[name]
    scaled, usual = (Run(cls(density=0.25, residual_at_decay=by), quadratic(), lr=falling) for by in (0.1, 1.0))
    for _ in range(12):
        scaled.step()
        usual.step()
    assert torch.equal(scaled.x, usual.x)
    before = scaled.state()
    assert before.residuals.any()
    scaled.step()
    assert_same(scaled.state().x + scaled.state().residuals.mean(0), before.x + 0.1 * before.residuals.mean(0)
                - 0.01 * before.gradients.mean(0))  # fmt: skip
    before = scaled.state()
    scaled.step()
    assert_same(scaled.state().x + scaled.state().residuals.mean(0),
                before.x + before.residuals.mean(0) - 0.01 * before.gradients.mean(0))  # fmt: skip


# alpha of the lazy methods.


@pytest.mark.parametrize(
    ("cls", "alpha"), [(laconic.LAG, 1.0), (laconic.LASG, 0.05), (laconic.SASG, 0.05)], ids=["lag", "lasg", "sasg"]
)
def test_alpha_is_of_the_learning_rate_of_now_or_of_the_initial_one_or_follows_later(cls, alpha):
    rounds = 24
    given = {"alpha": alpha, **SKIPPING}
    now = skips_by_round(cls(**given), rounds)
    constant = skips_by_round(cls(alpha_of="initial", **given), rounds)
    at_once = skips_by_round(cls(alpha_of="delayed", **given), rounds)
    later = skips_by_round(cls(alpha_of="delayed", alpha_delay=6, **given), rounds)
    never = skips_by_round(cls(alpha_of="delayed", alpha_delay=100, **given), rounds)
    assert now == at_once
    assert constant == never
    assert now[:12] == constant[:12] == later[:12]
    assert sum(now[12:18]) > sum(constant[12:18]), "the threshold jumps where the learning rate falls"
    assert later[:18] == constant[:18]
    assert (later != constant) == (cls is not laconic.LAG)  # whose rule skips only for a while here


def test_a_constant_alpha_is_the_threshold_of_the_initial_learning_rate():
    held, scaled = laconic.LASG(alpha=0.3, alpha_of="initial", **SKIPPING), laconic.LASG(alpha=0.3, **SKIPPING)
    run = Run(held, quadratic(n_workers=3), lr=falling)
    for _ in range(14):
        run.step()
    me = run.sim.workers[0].me
    me.lr = 0.01
    by_now = scaled.alpha / (me.lr / 3)
    assert held._lr_of_alpha(me) == 0.1
    assert by_now == pytest.approx(10 * held.alpha / (0.1 / 3))


# dist-EF's weight decay with a momentum of its own.


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["rank0", "allgather"])
def test_weight_decay_of_dist_ef_has_a_nesterov_momentum_of_its_own(layout):
    mu, decay, lr = 0.9, 0.05, 0.1
    run = Run(laconic.DistEFBlockwise(momentum=mu, weight_decay=decay), quadratic(), lr=lr, layout=layout)
    without = Run(laconic.DistEFBlockwise(momentum=mu), quadratic(), lr=lr, layout=layout)
    run.x = run.x + 1
    buffer = torch.zeros_like(run.x)
    for _ in range(8):
        without.x = run.x
        expected = without.step()
        here, applied = run.x, run.step()
        buffer = mu * buffer + decay * here
        assert_same(applied, expected + decay * here + mu * buffer)


# The sign of zero.


@pytest.mark.slow
def test_zeros_and_ties_are_sampled_on_request_alike_in_every_layout():
    flat = quadratic(d=400, n_workers=4)
    ones = torch.ones(400, dtype=torch.float64)

    def opposed(rank, t, x):
        return torch.where(torch.arange(400) < 200, 0.0, ones if rank % 2 else -ones)

    problem = type(flat)(start=flat.start, n_workers=4, gradient=opposed, gap=flat.gap)
    plus = Run(laconic.SignSGDMajorityVote(), problem).step()
    assert (plus == 1).all(), "0 is +1, and a tie is +1"
    sampled = {
        layout: Run(laconic.SignSGDMajorityVote(sign_zero="random"), problem, layout=layout).step()
        for layout in ("rank0", "sharded", "allgather")
    }
    for found in sampled.values():
        assert torch.equal(found, sampled["rank0"])
        assert set(found.tolist()) == {-1.0, 1.0}
    tied = sampled["rank0"][200:]
    assert 70 < int((tied == 1).sum()) < 130, "a tie of two against two is drawn evenly"
    sure = Run(laconic.SignSGDMajorityVote(sign_zero="random"), quadratic(n_workers=3), lr=steady)
    usual = Run(laconic.SignSGDMajorityVote(), quadratic(n_workers=3), lr=steady)
    assert torch.equal(sure.path(5), usual.path(5)), "where nothing is 0 and nothing ties, nothing is drawn"


# The most that a round takes.


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 4])
def test_paper_bits_of_add_drop_is_the_maximum_which_the_initial_round_takes(bits):
    algorithm = laconic.SSGDMVAD(density=0.25, swap_density=0.05, bits=bits)
    run = Run(algorithm, quadratic())
    maximum = algorithm.paper_bits(ModelSpec.of_sizes(37), 4)[0]
    by_round, before = [], 0.0
    for _ in range(10):
        run.step()
        now = run.sim.workers[0].meter.counts["up"].paper_bits
        by_round.append(now - before)
        before = now
    assert by_round[0] == pytest.approx(maximum)
    assert max(by_round[1:]) < by_round[0]
