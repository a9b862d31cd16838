"""A compressed warm-up: the density of top-K and majority voting falls exponentially to the method's own."""

import math

import pytest
import torch

import laconic
from laconic.contract import ModelSpec
from support.simulated_run import Run, quadratic, wavy

METHODS = (laconic.SSGDTopK, laconic.SSGDMV, laconic.SSGDMVRS, laconic.SSGDMVAD)


def densities(method, rounds):
    return [method.in_round(round_).density for round_ in range(rounds)]


def test_the_density_falls_in_equal_stages_by_equal_factors_of_4_or_less_as_in_deep_gradient_compression():
    method = laconic.SSGDTopK(density=0.001, warm_up_density=0.25, dense_rounds=20)
    found = densities(method, 22)
    stages = sorted(set(found), reverse=True)
    assert [found.count(stage) for stage in stages] == [5, 5, 5, 5, 2]
    assert stages == pytest.approx([0.25, 0.0629, 0.0158, 0.00398, 0.001], rel=0.01)  # 75, 93.75, 98.44, 99.6, 99.9 %
    for start, own, n in ((0.25, 0.01, 3), (0.04, 0.01, 1), (0.17, 0.01, 3), (1.0, 0.5, 1)):
        stages = sorted(set(densities(laconic.SSGDMV(density=own, warm_up_density=start, dense_rounds=12), 12)))
        assert (len(stages), stages[-1]) == (n, start)
        assert all(1 < high / low <= 4.0001 for low, high in zip([own, *stages], stages, strict=False))


@pytest.mark.parametrize("cls", METHODS)
def test_each_round_sends_what_the_method_sends_at_that_density_and_nothing_is_lost(cls):
    method = cls(density=0.1, warm_up_density=0.7, dense_rounds=4)
    problem = quadratic(d=40)
    run = Run(method, problem, lr=wavy)
    for t in range(6):
        before = run.state()
        bytes_before = run.sim.workers[0].meter.counts["up"].payload_bits
        run.step()
        after = run.state()
        changes = before.x - before.lr * before.gradients.mean(0) - after.x  # of the model, by what did not travel
        lost = changes - (after.residuals - before.residuals).mean(0)
        assert lost.abs().max() < 1e-12, (t, "the model and the residuals move by the mean change")
        sent = run.sim.workers[0].meter.counts["up"].payload_bits - bytes_before
        k = method.in_round(t).n_selected(40)
        assert k == math.floor(40 * densities(method, 6)[t] + 1e-9)
        assert sent >= 64 * k  # values in float64, and positions
        assert sent <= 64 * k + 8 * 40
    names = run.sim.workers[0].meter.by_exchange["up"]
    votes = method.exchanges(ModelSpec.of_sizes(40))[0]
    assert names[f"warm-up {votes.name}"].messages == 4
    assert names[votes.name].messages == 2


def test_after_the_warm_up_the_lists_of_add_drop_begin_in_full():
    method = laconic.SSGDMVAD(density=0.1, warm_up_density=0.7, dense_rounds=2, swap_density=0.05)
    run = Run(method, quadratic(d=40))
    has_list = []
    for _ in range(4):
        has_list.append("votes" in run.sim.workers[0].me.memory)
        run.step()
    assert has_list == [False, False, False, True]
    assert torch.isfinite(run.x).all()


def test_a_density_that_does_not_fall_is_refused():
    for options, text in (
        ({"density": 0.3}, "warm_up_density=0.25 must be above density=0.3, to which it falls"),
        ({"dense_rounds": 0}, "warm_up_density=0.25 needs dense_rounds"),
        ({"k": 5}, "give density in place of k"),
    ):
        with pytest.raises(ValueError, match="ssgd-mv: ") as error:
            laconic.SSGDMV(**{"warm_up_density": 0.25, "dense_rounds": 5, **options})
        assert text in str(error.value)
