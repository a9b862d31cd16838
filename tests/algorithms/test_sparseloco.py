"""SparseLoCo: the largest elements of each chunk, in two bits, with a residual that decays."""

from dataclasses import replace

import pytest
import torch

import laconic
from laconic.algorithms.diloco import DiLoCo
from laconic.algorithms.sparseloco import SparseLoCo
from laconic.contract import ModelSpec
from support import small_model
from support.deadlines import PATIENCE_S
from support.inputs import over_inputs
from support.ranks import run_ranks
from support.simulated_run import Run, assert_same, quadratic

N, H, ROUNDS = 3, 4, 5
FULL = SparseLoCo(density=1.0, bits=32)
CHUNK = 8


def largest(chunk, k):
    """The k elements of largest magnitude of a chunk, zero elsewhere."""
    _, indices = chunk.abs().topk(k)
    return torch.zeros_like(chunk).index_copy_(0, indices, chunk[indices])


def in_two_bits(vector):
    """The elements that are not zero as their signs times the mean magnitude above or below a bound.

    The bound is the geometric mean of the largest and the smallest magnitude.
    """
    magnitudes = vector.abs()
    there = magnitudes > 0
    bound = (magnitudes.max() * magnitudes[there].min()).sqrt()
    for level in (there & (magnitudes >= bound), there & (magnitudes < bound)):
        magnitudes[level] = magnitudes[level].mean()
    return vector.sign() * magnitudes


@over_inputs("bits", (2, 32))
@over_inputs("layout", ("rank0", "dedicated"))
def test_it_is_the_papers_algorithm_round_by_round(bits, layout):
    problem, lr = quadratic(n_workers=N, d=27), 0.05
    run = Run(SparseLoCo(k=2, blocks=str(CHUNK), bits=bits, decay=0.9, outer_lr=0.8), problem, lr=lr, layout=layout)
    x, errors = problem.start.clone(), torch.zeros(N, problem.d, dtype=torch.float64)
    for round_ in range(12):
        sent = []
        for rank in range(N):
            change = -lr * problem.gradient(rank, round_, x)
            accumulated = 0.9 * errors[rank] + change
            chosen = torch.cat([largest(chunk, 2) for chunk in accumulated.split(CHUNK)])
            sent.append(chosen if bits == 32 else in_two_bits(chosen))
            errors[rank] = accumulated - sent[-1]
        x = x + 0.8 * torch.stack(sent).mean(0)
        run.step()
        assert_same(run.x, x)
        assert_same(run.state().residuals, errors)


def test_by_default_64_of_4096_parameters_are_sent_in_two_bits_each():
    d = 3 * 4096 + 100
    run = Run(SparseLoCo(), quadratic(n_workers=2, d=d), layout="rank0", dtype=torch.float32)
    worker = run.sim.workers[1]
    run.step()
    residual = worker.me.memory["residual"]
    spec = ModelSpec.of_sizes(d)
    n_selected = 3 * 64 + 1  # of the last 100 parameters one
    assert SparseLoCo().n_selected(spec) == n_selected
    assert SparseLoCo().paper_bits(spec, 2) == (n_selected * (2 + 8), 2 * n_selected * (32 + 7))
    assert worker.meter.counts["up"].paper_bits == n_selected * (2 + 8)
    assert residual.count_nonzero() > d - n_selected


def test_what_is_not_sent_decays():
    ends = {}
    for decay in (1.0, 0.5, 0.0):
        run = Run(SparseLoCo(k=1, blocks="37", bits=32, decay=decay), quadratic(n_workers=2), lr=0.05)
        run.path(10)
        ends[decay] = float(run.state().residuals.norm())
    assert ends[0.0] < ends[0.5] < ends[1.0]


def simulated(algorithm, dtype, layout):
    """The parameters after each round of AdamW's local steps, (ROUNDS, d)."""
    net = small_model.net().to(dtype)
    inner = torch.optim.AdamW(net.parameters(), lr=0.01)
    simulation = laconic.Simulation(net, inner, algorithm, workers=N, layout=layout, local_steps=H)
    points = []
    for step in range(H * ROUNDS):
        simulation.step(lambda rank, step=step: small_model.loss(net, rank, step))
        if step % H == H - 1:
            points.append(small_model.values(net))
    return torch.stack(points)


@over_inputs("outer_lr", (1.0, 0.7))
@over_inputs("layout", ("rank0", "sharded"))
def test_all_values_in_32_bits_are_diloco_without_outer_momentum(layout, outer_lr):
    for dtype, to in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        expected = simulated(DiLoCo(outer_lr=outer_lr, outer_momentum=0.0), dtype, layout)
        assert_same(simulated(replace(FULL, outer_lr=outer_lr), dtype, layout), expected, to=to)


def in_process(rank, layout):
    """The parameters at the end, by SparseLoCo in full and by DiLoCo without outer momentum; and in two bits."""
    ends = []
    for algorithm in (FULL, DiLoCo(outer_lr=1.0, outer_momentum=0.0), SparseLoCo(density=0.1)):
        net = small_model.net()
        inner = torch.optim.AdamW(net.parameters(), lr=0.01)
        opt = laconic.DistributedOptimizer(
            inner, algorithm, model=net, layout=layout, local_steps=H, timeout_s=PATIENCE_S
        )
        for step in range(H * ROUNDS):
            opt.zero_grad()
            small_model.loss(net, rank, step).backward()
            opt.step()
        ends.append(small_model.values(net))
    return ends


@pytest.mark.slow
def test_in_processes_it_is_diloco_without_outer_momentum_too_and_equals_the_simulator():
    expected = simulated(SparseLoCo(density=0.1), torch.float32, "rank0")[-1]
    for full, diloco, in_two in run_ranks(in_process, N, "rank0"):
        assert_same(full, diloco, to=1e-6)
        assert torch.equal(in_two, expected)


def test_a_number_of_bits_that_no_value_has_is_refused_with_the_ones_that_exist():
    with pytest.raises(ValueError, match=r"sparseloco: bits=20 must be in 1 \.\. 16, or 32"):
        SparseLoCo(bits=20)
