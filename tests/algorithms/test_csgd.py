"""CSGD, and error compensation together with randomized compressors."""

from dataclasses import replace
from itertools import combinations, pairwise
from math import comb

import pytest
import torch

import laconic
from laconic.algorithms.csgd import CSGD, partition_lengths
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sgd import SGD
from laconic.compressors import (
    COMPRESSORS,
    Clipped,
    Identity,
    Natural,
    Quantized,
    ScaledSign,
    Sparsified,
    Ternary,
)
from laconic.contract import ModelSpec
from laconic.protocol.layout import choose_layout
from support import optimizers, small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks
from support.recording_meter import with_recording_meters
from support.simulated_run import Run, assert_same, logistic, normal, quadratic, wavy

LAYERS = (20, 1, 16)  # of 37


def both(method, compressor):
    """The method with one compressor in both directions."""
    return method(compressor=compressor, server_compressor=compressor)


def mean_gap(run, *, rounds, last):
    """The mean of the gap over the last of `rounds` rounds; that of one iterate is too noisy."""
    return sum(run.problem.gap(x) for x in run.path(rounds)[-last:]) / last


# What CSGD computes.


def test_csgd_with_a_lossless_compressor_is_sgd_bit_for_bit():
    problem = quadratic()
    for layout in ("rank0", "dedicated", "sharded"):
        run = Run(both(CSGD, Identity()), problem, lr=wavy, layout=layout)
        assert torch.equal(run.path(20), Run(SGD(), problem, lr=wavy, layout=layout).path(20))


@pytest.mark.slow
def test_csgd_is_q_of_the_mean_of_q_with_draws_of_each_sides_own():
    problem = quadratic(n_workers=3)
    algorithm = CSGD(compressor=Quantized(bits=2), server_compressor=Natural())
    run = Run(algorithm, problem, lr=wavy, seed=4)
    keys = [laconic.random_keys.make_key(4, "worker", rank, 0, "compress") for rank in range(3)]
    sent = [Quantized(bits=2)(g, key=key).dense() for g, key in zip(run.gradients(), keys, strict=True)]
    server_key = laconic.random_keys.make_key(4, "server", 0, 0, "compress")
    assert len({*keys, server_key}) == 4
    expected = Natural()(sum(sent) / 3, key=server_key).dense()
    assert torch.equal(run.step(), expected)


@pytest.mark.slow
def test_csgd_claims_to_be_separable_where_both_compressors_are():
    assert CSGD(compressor=Natural(), server_compressor=Sparsified()).separable
    assert not CSGD(compressor=Natural()).separable
    assert not CSGD().separable
    problem = quadratic(n_workers=3)
    runs = [
        Run(both(CSGD, Sparsified(keep=0.5)), problem, lr=wavy, layout=layout, seed=2)
        for layout in ("rank0", "sharded")
    ]
    assert torch.equal(runs[0].path(10), runs[1].path(10))


# One server for each partition.


def test_each_partition_is_compressed_by_itself_by_the_workers_and_by_its_server():
    problem, bounds = quadratic(n_workers=3), (0, 13, 25, 37)
    run = Run(CSGD(partitions=True), problem, lr=wavy, seed=4, layout="sharded")
    keys = [laconic.random_keys.make_key(4, "worker", rank, 0, "compress") for rank in range(3)]
    server_key = laconic.random_keys.make_key(4, "server", 0, 0, "compress")
    expected = []
    for start, stop in pairwise(bounds):
        parts = [g[start:stop] for g in run.gradients()]
        sent = [Quantized()(part, key=key, offset=start).dense() for part, key in zip(parts, keys, strict=True)]
        expected.append(Quantized()(sum(sent) / 3, key=server_key, offset=start).dense())
    assert torch.equal(run.step(), torch.cat(expected))


def test_partitions_are_those_of_the_servers_and_change_no_bit_with_the_layout():
    for d, n in ((37, 4), (8, 4), (3, 5), (1, 1)):
        layout = choose_layout("sharded", CSGD(partitions=True), ModelSpec.of_sizes(d), n)
        assert partition_lengths(d, n) == tuple(shard.count for shard in layout.shards)
    for compressor in (Quantized(bits=3), Ternary(blocks="vector"), ScaledSign(blocks="vector")):
        algorithm = replace(both(CSGD, compressor), partitions=True)
        paths = [
            Run(algorithm, quadratic(n_workers=3), lr=wavy, layout=layout, seed=2, frames=frames).path(5)
            for layout, frames in (("sharded", "sized"), ("sharded", "encoded"), ("rank0", "sized"))
        ]
        assert torch.equal(paths[0], paths[1]), compressor
        assert torch.equal(paths[0], paths[2]), compressor


def test_partitions_are_refused_where_compressors_have_no_block_for_one():
    for compressor in (Sparsified(), Quantized(blocks="7"), ScaledSign()):
        with pytest.raises(ValueError, match="partitions=True needs compressor with one block for a partition"):
            replace(both(CSGD, compressor), partitions=True)
    with pytest.raises(ValueError, match="needs server_compressor with one block"):
        CSGD(partitions=True, server_compressor=Natural())


def steps_in_process(rank):
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    opt = laconic.DistributedOptimizer(
        inner, CSGD(partitions=True), model=net, layout="sharded", seed=5, timeout_s=PATIENCE_S
    )
    for round_ in range(4):
        optimizers.one_step(opt, net, rank, round_)
    return small_model.values(net), opt.traffic.as_data()


@pytest.mark.slow
def test_servers_of_partitions_give_the_bits_and_bytes_of_the_simulator():
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    simulation = laconic.Simulation(net, inner, CSGD(partitions=True), workers=3, layout="sharded", seed=5)
    for round_ in range(4):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
    found = run_ranks(steps_in_process, 3)
    assert all(torch.equal(values, small_model.values(net)) for values, _ in found)
    sent = sum(traffic["up"]["wire_bytes"] for _, traffic in found)
    assert sent == simulation.traffic.up.wire_bytes


def test_whatever_its_defaults_compress_with_is_unbiased_as_it_claims():
    assert CSGD.unbiased == (CSGD().compressor.unbiased and CSGD().server_compressor.unbiased)


def test_paper_bits_of_csgd_are_b_a_coordinate_in_each_direction():
    run = with_recording_meters(
        Run(both(CSGD, Quantized(bits=4)), quadratic(n_workers=3), dtype=torch.float32, frames="encoded")
    )
    run.path(5)
    assert both(CSGD, Quantized(bits=4)).paper_bits(ModelSpec.of_sizes(37)) == (148, 148)
    for worker in run.sim.workers:
        for direction in ("up", "down"):
            count = worker.meter.counts[direction]
            assert (count.paper_bits, count.payload_bits) == (5 * 148, 5 * (148 + 64))


# Variance.


def test_batches_without_replacement_vary_less_by_the_factor_of_the_finite_population():
    """Var = (M - B) / (M - 1) Var_1 / B, over all batches of B of the M samples of a least-squares problem."""
    m, d = 8, 3
    samples, x = normal(m, d + 1, key=77), normal(d, key=78)
    points, values = samples[:, :d], samples[:, d]
    gradients = points * (points @ x - values)[:, None]
    of_one = gradients - gradients.mean(0)
    for size in (1, 3, 5, 8):
        batches = torch.tensor(list(combinations(range(m), size)))
        assert len(batches) == comb(m, size)
        steps = torch.stack([points[b].T @ (points[b] @ x - values[b]) / size for b in batches])
        variance = (steps - steps.mean(0)).square().sum(1).mean()
        assert_same(steps.mean(0), gradients.mean(0))
        assert_same(variance, (m - size) / (m - 1) * of_one.square().sum(1).mean() / size, gradients)


@pytest.mark.slow
@pytest.mark.parametrize("compressor", [Quantized(bits=2), Ternary(), Sparsified(keep=0.5)], ids=lambda c: c.name)
def test_csgds_direction_varies_by_no_more_than_the_monograph_says(compressor):
    """sigma^2 / N + (1 + 1/N) sigma'^2, with the largest sigma' of all vectors that were compressed."""
    noise, n, rounds = 0.3, 4, 150
    problem = quadratic(noise=noise, n_workers=n)
    run = with_recording_meters(Run(both(CSGD, compressor), problem, lr=0.0, frames="encoded"))
    directions = torch.stack([run.step() for _ in range(rounds)])
    given = [problem.gradient(rank, t, problem.start) for t in range(rounds) for rank in range(n)]
    sent = [[frame.packet.dense() for frame, *_ in worker.meter.seen["up"]] for worker in run.sim.workers]
    up = [float(compressor.variances(gradient).sum()) for gradient in given]
    down = [float(compressor.variances(sum(packets) / n).sum()) for packets in zip(*sent, strict=True)]
    variance = float((directions - directions.mean(0)).square().sum() / (rounds - 1))
    sigma_square = noise**2 * problem.d
    assert variance <= sigma_square / n + (1 + 1 / n) * max(up + down)
    exact = sigma_square / n + sum(up) / len(up) / n + sum(down) / len(down)
    assert variance == pytest.approx(exact, rel=0.15)


# Error compensation.


@pytest.mark.slow
def test_where_the_compressor_is_coarse_error_compensation_beats_csgd():
    """From a point that SGD has reached, all three fluctuate about the best one, the compressed two more than SGD."""
    problem = logistic()
    problem = replace(problem, start=Run(SGD(), problem, lr=0.5).path(150)[-1])
    coarse = Ternary(blocks="5")
    reference, compensated, forgetful = (
        mean_gap(Run(algorithm, problem, lr=0.5), rounds=100, last=70)
        for algorithm in (SGD(), both(ECSGD, coarse), both(CSGD, coarse))
    )
    assert reference < compensated
    assert compensated - reference < (forgetful - reference) / 2


def test_a_residual_grows_without_bound_under_a_compressor_that_adds_more_than_it_is_given():
    """(1/p - 1) ||z||^2 with p = 0.3 is more than ||z||^2. Without a residual, the compressor does no such harm."""
    problem = quadratic(noise=0.05, n_workers=3)
    keeps_few = Sparsified(keep=0.3)
    start = problem.gap(problem.start)
    with pytest.warns(UserWarning, match="training diverges"):
        with_residual = Run(both(ECSGD, keeps_few), problem, lr=0.05)
    assert mean_gap(with_residual, rounds=60, last=10) > 100 * start
    assert mean_gap(Run(both(CSGD, keeps_few), problem, lr=0.05), rounds=60, last=10) < start


COMPENSATED = {name: cls(**cls.test_settings) for name, cls in COMPRESSORS.items()}
WITHOUT_BOUND = {"sign", "selected-sign"}  # signs without a scale, and a draw that may select nothing


@pytest.mark.parametrize("name", [name for name in COMPENSATED if name not in WITHOUT_BOUND])
@pytest.mark.slow
def test_every_compressor_with_a_bound_converges_with_a_residual(name):
    problem = quadratic(noise=0.05, n_workers=3)
    run = Run(both(ECSGD, COMPENSATED[name]), problem, lr=0.05, layers=LAYERS)
    assert mean_gap(run, rounds=100, last=20) < problem.gap(problem.start) / 100


@pytest.mark.slow
def test_signs_of_a_share_of_the_elements_come_closer_with_smaller_steps():
    """A contraction on average alone leaves a residual of the size of rate / share."""
    problem = quadratic(noise=0.05, n_workers=3)
    start, compressor = problem.gap(problem.start), COMPENSATED["selected-sign"]
    high, low = (
        mean_gap(Run(both(ECSGD, compressor), problem, lr=lr, layers=LAYERS), rounds=400, last=20)
        for lr in (0.05, 0.01)
    )
    assert low < start / 100
    assert low < high / 4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, cls in COMPRESSORS.items() if cls.unbiased])
def test_every_unbiased_compressor_converges_without_a_residual(name):
    problem = quadratic(noise=0.05, n_workers=3)
    run = Run(both(CSGD, COMPENSATED[name]), problem, lr=0.05, layers=LAYERS)
    assert mean_gap(run, rounds=100, last=20) < problem.gap(problem.start) / 20


def test_a_biased_compressor_without_a_residual_stays_away_from_the_best_point():
    problem = quadratic(noise=0.0, n_workers=3)
    blunt = Clipped(mantissa_bits=0)
    with_residual, without = (
        mean_gap(Run(both(m, blunt), problem, lr=0.1), rounds=100, last=10) for m in (ECSGD, CSGD)
    )
    assert with_residual < without / 100


@pytest.mark.parametrize("algorithm", [both(CSGD, Quantized()), both(ECSGD, Quantized(bits=4)), both(ECSGD, Clipped())])
@pytest.mark.slow
def test_local_steps_go_with_randomized_compressors(algorithm):
    x = torch.nn.Parameter(torch.zeros(23))
    targets = torch.randn(4, 23, generator=torch.Generator().manual_seed(3))
    inner = torch.optim.SGD([x], lr=0.1)
    simulation = laconic.Simulation(torch.nn.ParameterList([x]), inner, algorithm, workers=4, local_steps=3)
    for _ in range(80):
        simulation.step(lambda rank: 0.5 * (x - targets[rank]).square().sum())
    assert float((x.detach() - targets.mean(0)).norm()) < 0.1 * float(targets.mean(0).norm())
