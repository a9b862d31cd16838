"""Invariants under random fault plans: equal replicas, and every gradient applied or kept as residual.

A plan depends on its seed alone. A test that fails prints the command that repeats it.
"""

from dataclasses import replace

import pytest
import torch

from laconic import ALGORITHMS
from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sasg import SASG
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.algorithms.sparse import SparseSGD
from laconic.faults.plan import Event, FaultPlan
from laconic.network import Link
from laconic.random_keys import make_key, uniform
from support.inputs import over_inputs
from support.methods import SAMPLES, layouts_of
from support.simulated_run import Problem, Run, assert_same, linear, normal, quadratic, steady, wavy

ROUNDS = 40
D = 11
LAYERS = (6, 1, 4)
SEVERAL, ALL = range(4), range(1000)


def random_number(seed, purpose, low, high):
    return low + (high - low) * uniform(make_key(seed, "data", 0, 0, purpose))


def workers_of(seed):
    """3 .. 8."""
    return int(random_number(seed, "workers", 3, 9))


def plan_of(seed):
    """Probabilities from 0 to 1/3, two events, slow workers and links; in one plan of eight all crash at once."""
    n = workers_of(seed)
    chances = {
        kind: max(0.0, random_number(seed, kind, -0.15, 0.3)) for kind in ("lost", "late", "duplicated", "corrupted")
    }
    events = [
        Event(
            round=int(random_number(seed, f"round {i}", 0, ROUNDS)),
            worker=int(random_number(seed, f"worker {i}", 0, n)),
            kind=kind,
        )
        for i, kind in enumerate(("lost", "crashed"))
    ]
    if seed % 8 == 0:
        events += [Event(round=ROUNDS // 2, worker=rank, kind="crashed") for rank in range(n)]
    return FaultPlan(
        seed=seed, **chances, crashed=max(0.0, random_number(seed, "crashed", -0.05, 0.1)),
        crash_rounds=int(random_number(seed, "length", 1, 6)), straggle=0.1,
        straggle_factor=random_number(seed, "slow", 1, 9),
        stragglers={seed % n: 2.5}, slow_links={(seed + 1) % n: 0.25}, events=tuple(events),
    )  # fmt: skip


def problem_of(seed):
    """Each worker's own quadratic, with noise."""
    n = workers_of(seed)
    targets, noise = normal(n, D, key=seed << 1), normal(n, ROUNDS + 1, D, key=seed << 1 | 1 << 40)
    return Problem(
        start=torch.zeros(D, dtype=torch.float64), n_workers=n,
        gradient=lambda rank, t, x: x - targets[rank] + 0.3 * noise[rank, t], gap=float,
    )  # fmt: skip


def run_of(algorithm, seed, **changes):
    """The algorithm under the plan of that seed; one plan of eight is sharded, if the method admits it."""
    layout = "sharded" if seed % 8 == 3 and algorithm.separable else ("rank0", "dedicated")[seed % 2]
    return Run(
        algorithm, problem_of(seed), seed=seed, layers=LAYERS,
        lr=steady if isinstance(algorithm, DropSign) else wavy, layout=layout,
        compute_s=0.01, link=Link(bytes_per_s=1e5, latency_s=0.001), faults=replace(plan_of(seed), **changes),
    )  # fmt: skip


class RoundRecord:
    """One round of a run: the states around it, and the workers that were up, skipped, and were delivered."""

    def __init__(self, run, now):
        plan, n = run.sim.injector.plan, run.problem.n_workers
        workers = run.sim.workers
        self.now = now
        skips = [worker.meter.counts["up"].skips for worker in workers]
        self.up = [rank for rank in range(n) if not plan.is_down(rank, run.t)]
        self.delivered = [rank for rank in self.up if plan.fate(rank, run.t, 0) in ("delivered", "duplicated")]
        applied = run.step()
        self.then = run.state()
        self.skipped = [rank for rank in range(n) if workers[rank].meter.counts["up"].skips > skips[rank]]
        assert all(torch.equal(workers[rank].result, applied) for rank in self.up)

    def mean(self, vectors):
        """The vectors (n, d) of the workers that were up, over the number of all workers."""
        return vectors[self.up].sum(0) / len(vectors)


# By how much each virtual iterate moves. If no worker is up, it does not move.


def ec_sgd(run, one):
    lr = one.now.lr
    return (
        one.now.x - lr * one.now.residual_out,
        one.then.x - lr * one.then.residual_out,
        lr * one.mean(one.now.gradients),
    )


def dropsign(run, one):
    algorithm = run.sim.job.algorithm
    learning_rate = one.now.lr / algorithm.c
    step = learning_rate * one.mean(algorithm.momentum * one.then.momenta + one.now.gradients)
    return one.now.x - learning_rate * one.now.residual_out, one.then.x - learning_rate * one.then.residual_out, step


def compskip(run, one):
    """Residuals decay where a step happens: at workers that are up, and at the server if one of them is."""
    algorithm, now = run.sim.job.algorithm, one.now
    learning_rate, carried = now.lr / algorithm.c, now.residuals.clone()
    carried[one.up] *= algorithm.decay
    residual_out = (algorithm.decay if one.up else 1.0) * now.server_residual + carried.mean(0)
    step = learning_rate * one.mean(algorithm.momentum * one.then.momenta + now.gradients)
    return now.x - learning_rate * residual_out, one.then.x - learning_rate * one.then.residual_out, step


def sparse(run, one):
    return (
        one.now.x - one.now.residual_out,
        one.then.x - one.then.residual_out,
        one.now.lr * one.mean(one.now.gradients),
    )


def sasg(run, one):
    """Gradients of uploads, delivered or not; the server's stored copy for delivered skips; nothing for lost skips."""
    share = torch.zeros_like(run.x)
    for rank in one.up:
        if rank not in one.skipped:
            share = share + one.now.lr * one.now.gradients[rank]
        elif rank in one.delivered:
            share = share + stored_of(run, rank)
    return one.now.x - one.now.residual_out, one.then.x - one.then.residual_out, share / run.problem.n_workers


def stored_of(run, rank):
    """Worker `rank`'s last upload as SASG's servers store it, (d,)."""
    full = torch.zeros_like(run.x)
    for server in run.sim.servers:
        memory = server.view.memory
        if f"positions.{rank}" in memory:
            full[server.shard.offset + memory[f"positions.{rank}"].long()] = memory[f"values.{rank}"]
    return full


METHODS = {
    "ec-sgd": (ECSGD(), ec_sgd),
    "dropsign": (DropSign(c=0.5, server_c=0.5), dropsign),
    "compskip": (CompSkip(c=0.5, server_c=0.5), compskip),
    "sparse": (SparseSGD(density=0.3), sparse),
    "sasg": (SASG(density=0.3, alpha=0.3, warm_up_rounds=2, max_delay=5), sasg),
}
each_method = pytest.mark.parametrize("name", METHODS)


def holds_under(name, seeds, config):
    """Run the plans of the seeds, or the one that --fault-seed names; how often each fault happened."""
    algorithm, iterate = METHODS[name]
    chosen = config.getoption("--fault-seed")
    seen = dict.fromkeys(("lost", "late", "duplicated", "corrupted", "crashed", "all down", "skips"), 0)
    for seed in seeds if chosen is None else [chosen]:
        try:
            run = run_of(algorithm, seed)
            now = run.state()
            for _ in range(ROUNDS):
                one = RoundRecord(run, now)
                now = one.then
                before, after, step = iterate(run, one)
                terms = (one.now.x, one.then.x, before - one.now.x, after - one.then.x)
                assert_same(after, before - step, step, *terms, to=1e-9)
                seen["all down"] += not one.up
                seen["skips"] += len(one.skipped)
        except Exception as error:
            again = f"python -m pytest tests/faults/test_faults.py --fault-seed {seed} -k {name}"
            raise AssertionError(f"{name} fails under fault plan {seed}; again: {again}") from error
        for counted in run.sim.injector.counts:
            for kind, count in counted.items():
                seen[kind] += count
    return seen


@pytest.mark.slow
@each_method
def test_some_plans_keep_replicas_equal_and_every_gradient_applied_or_residual(name, request):
    seen = holds_under(name, SEVERAL, request.config)
    if request.config.getoption("--fault-seed") is None:
        assert min(seen[kind] for kind in seen if kind != "skips") > 0
        assert (seen["skips"] > 0) == METHODS[name][0].skips


@pytest.mark.nightly
@each_method
def test_a_thousand_plans_keep_replicas_equal_and_every_gradient_applied_or_residual(name, request):
    holds_under(name, ALL, request.config)


def test_a_plan_that_breaks_a_claim_prints_the_command_that_tries_it_again(request, monkeypatch):
    def forgetful(run, one):
        """Behaves as if lost packets left no residual."""
        before, after, step = ec_sgd(run, one)
        gone = [rank for rank in one.up if rank not in one.delivered]
        return before, after, step - one.now.lr * one.now.gradients[gone].sum(0) / run.problem.n_workers

    monkeypatch.setitem(METHODS, "ec-sgd", (ECSGD(), forgetful))
    with pytest.raises(AssertionError, match=r"pytest tests/faults/test_faults.py --fault-seed \d+ -k ec-sgd"):
        holds_under("ec-sgd", SEVERAL, request.config)


# Methods that claim to keep what is not delivered as residual.

TOLERANT = [name for name, sample in SAMPLES.items() if sample.tolerates_absence and not sample.dense_in(0)]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLERANT)
def test_one_plan_gives_the_same_parameters_and_faults_again_and_on_every_layout(name):
    algorithm = SAMPLES[name]
    layouts = [layout for layout in layouts_of(algorithm, 4) if layout not in ("allreduce", "allgather")]
    plan = replace(plan_of(8), slow_links={}, stragglers={}, straggle=0.0, events=(), rescale=(0.5, 2.0))
    runs = [
        Run(algorithm, quadratic(n_workers=4), lr=0.02, layout=layout_name, faults=plan)
        for layout_name in (*layouts, layouts[0])
    ]
    paths = [run.path(12) for run in runs]
    counts = [run.sim.injector.counts for run in runs]
    assert all(torch.equal(path, paths[0]) for path in paths)
    assert all(count == counts[0] for count in counts)
    assert any(counts[0])


def test_another_seed_gives_another_run():
    one, other = (
        Run(ECSGD(), quadratic(n_workers=4), faults=FaultPlan(seed=seed, lost=0.2)).path(10) for seed in (5, 6)
    )
    assert not torch.equal(one, other)


# Tampering.


@over_inputs("seed", range(3, 6))
def test_rescaled_messages_change_no_bit_of_dropsigns_parameters(seed):
    algorithm = METHODS["dropsign"][0]
    honest, rescaled = (run_of(algorithm, seed, rescale=rescale) for rescale in (None, (1e-30, 1e30)))
    assert torch.equal(honest.path(ROUNDS), rescaled.path(ROUNDS))
    for one, other in zip(honest.sim.workers, rescaled.sim.workers, strict=True):
        assert one.meter.saved() == other.meter.saved()


def test_a_rescaled_message_of_values_is_multiplied_by_the_factor_of_the_plan():
    plan = FaultPlan(seed=2, rescale=(0.1, 10.0))
    slopes = normal(3, D, key=8)
    problem = replace(linear(slopes[0], n_workers=3), gradient=lambda rank, t, x: slopes[rank])
    run = Run(ALGORITHMS["sgd"](), problem, layout="rank0", faults=plan)
    for t in range(4):
        factors = [plan.tampering_factor(rank, 3, t, 0) for rank in range(3)]
        assert all(0.1 <= factor <= 10 for factor in factors)
        assert_same(run.step(), sum(factor * slope for factor, slope in zip(factors, slopes, strict=True)) / 3)


@over_inputs("liars", range(8))
def test_inverted_links_invert_a_unanimous_vote_only_if_they_are_the_majority(liars):
    problem = linear(normal(D, key=5), n_workers=7)
    honest = Run(SignSGDMajorityVote(), problem, lr=0.01)
    run = Run(SignSGDMajorityVote(), problem, lr=0.01, faults=FaultPlan(inverted_links=liars))
    for _ in range(8):
        assert torch.equal(run.step(), honest.step() if liars < 3.5 else -honest.step())


def test_inverted_links_are_sampled_anew_each_round_and_as_many_as_requested():
    plan = FaultPlan(seed=1, inverted_links=3)
    chosen = [plan.inverted(7, round_) for round_ in range(50)]
    assert {len(links) for links in chosen} == {3}
    assert len(set(chosen)) > 20
    assert frozenset.union(*chosen) == set(range(7))
    assert chosen == [FaultPlan(seed=1, inverted_links=3).inverted(7, round_) for round_ in range(50)]
