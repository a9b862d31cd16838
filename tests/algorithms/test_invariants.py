"""What must not change the result, for every algorithm.

Faults of sign and scale, replicas, which worker has which data, number of servers, order of delivery, seeds.
"""

import inspect
import re
from dataclasses import dataclass

import pytest
import torch

import laconic
from laconic import ALGORITHMS
from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.lag import LAG
from laconic.algorithms.lasg import LASG
from laconic.algorithms.sasg import SASG
from laconic.algorithms.sgd import SGD
from laconic.algorithms.sgd_model import ModelAveraging
from laconic.algorithms.sgd_server import GlobalReplica
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.algorithms.sparse import SparseSGD
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_mv_ad import SSGDMVAD
from laconic.algorithms.ssgd_mv_rs import SSGDMVRS
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.compressors import signs
from laconic.contract import algorithm
from laconic.errors import ContractError
from laconic.policies.skip_policies import Never
from laconic.wire import encode
from support.inputs import over_inputs
from support.methods import LAYERS, SAMPLES, each_case, each_sample
from support.recording_meter import with_recording_meters
from support.simulated_run import Run, assert_same, linear, normal, quadratic

# Signs carry no scale, and a minority of inverted signs changes no unanimous vote.


@dataclass(frozen=True, kw_only=True)
class RescaledDropSign(DropSign):
    """Each worker's corrected gradient is multiplied by a positive number before its signs are taken."""

    def work(self, me):
        momentum = self.momentum * me.memory["momentum"] + me.gradient
        corrected = self.momentum * momentum + me.gradient + me.memory["residual"]
        me.memory["momentum"] = momentum
        factor = [1.0, 1e-3, 700.0, 3.0][(me.rank + me.round) % 4]
        sent = signs(factor * corrected, keep=self.keep, key=me.key("mask"))
        reply = yield sent
        me.memory["residual"] = corrected - self.c * sent.dense()
        return reply.dense()


def test_positive_rescaling_before_the_signs_leaves_dropsign_bit_identical():
    rescaled = Run(RescaledDropSign(c=1.0, server_c=1.0), quadratic(), lr=0.03)
    assert torch.equal(rescaled.path(25), Run(DropSign(c=1.0, server_c=1.0), quadratic(), lr=0.03).path(25))


@dataclass(frozen=True, kw_only=True)
class SignInverters(SignSGDMajorityVote):
    """`liars` workers, different ones each round, send inverted signs."""

    liars: int

    def work(self, me):
        step = super().work(me)
        packet = next(step)
        if (me.rank - 2 * me.round) % me.n_workers < self.liars:
            packet = packet.scaled(-1)
        reply = yield packet
        try:
            step.send(reply)
        except StopIteration as end:
            return end.value


@over_inputs("liars", range(8))
def test_inverted_signs_change_a_unanimous_vote_only_when_they_are_the_majority(liars):
    problem = linear(normal(37, key=5), n_workers=7)
    honest = Run(SignSGDMajorityVote(), problem, lr=0.01)
    run = Run(SignInverters(liars=liars), problem, lr=0.01)
    for _ in range(8):
        assert torch.equal(run.step(), honest.step() if liars < 3.5 else -honest.step())


# Replicas.


@pytest.fixture
def cheat():
    """An algorithm that claims equal replicas but gives worker 2 another result from round 3 on."""

    @algorithm("test-cheat")
    @dataclass(frozen=True, kw_only=True)
    class OrderCheat(SGD):
        def work(self, me):
            reply = yield from super().work(me)
            return reply + 2**-40 if me.rank == 2 and me.round >= 3 else reply

    yield OrderCheat
    del ALGORITHMS["test-cheat"]


def test_an_algorithm_whose_replicas_drift_apart_is_refused_with_the_worker_named(cheat):
    run = Run(ALGORITHMS["test-cheat"](), quadratic())
    run.path(3)
    with pytest.raises(
        ContractError, match=r"test-cheat claims equal replicas, but worker 2 .* than worker 0 in round 3"
    ):
        run.step()


def test_without_that_claim_each_worker_gets_its_own_result(cheat):
    cheat.replicas_equal = False
    run = Run(cheat(), quadratic())
    run.path(4)
    results = [worker.result for worker in run.sim.workers]
    assert torch.equal(results[0], results[3])
    assert_same(results[2] - results[0], torch.full((37,), 2.0**-40, dtype=torch.float64), results[0])
    assert not torch.equal(results[2], results[0])


@pytest.mark.slow
@each_case
def test_after_each_round_every_worker_has_the_same_result(name, layout):
    run = Run(SAMPLES[name], quadratic(n_workers=3), lr=0.02, layout=layout)
    for _ in range(5):
        applied = run.step()
        assert all(torch.equal(worker.result, applied) for worker in run.sim.workers)


# Which worker has which data.

SYMMETRIC = [
    SGD(),
    ModelAveraging(),
    GlobalReplica(),
    ECSGD(),
    SignSGDMajorityVote(),
    DistEFBlockwise(),
    DropSign(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0),
    CompSkip(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0, skip=Never(), server_skip=Never()),
    SparseSGD(density=0.25),
    LAG(warm_up_rounds=1),
    LASG(alpha=0.2, warm_up_rounds=1),
    SASG(density=0.25, alpha=0.2, warm_up_rounds=1),
    SSGDTopK(density=0.25),
    SSGDMV(density=0.25),
    SSGDMV(density=0.25, ties="index", bits=4),
    SSGDMVAD(density=0.25, swap_density=0.1),
    SSGDMVRS(density=0.25),
]


@pytest.mark.slow
@pytest.mark.parametrize("sample", SYMMETRIC, ids=lambda sample: sample.name)
def test_dealing_the_data_to_the_workers_in_another_order_changes_nothing(sample):
    problem = quadratic(n_workers=5)
    order = [2, 0, 4, 1, 3]
    one = Run(sample, problem, lr=0.02, layers=LAYERS)
    other = Run(sample, problem.dealt(order), lr=0.02, layers=LAYERS)
    assert_same(other.path(20), one.path(20))
    assert_same(other.state().residuals, one.state().residuals[order], one.state().gradients, to=1e-11)


# Separable claims.

SEPARABLE = [name for name, sample in SAMPLES.items() if sample.separable]
UNEVEN = ((23, 4), (3, 5))  # (d, workers): d is not divisible by the number of workers, and below it


@pytest.mark.parametrize("name", SEPARABLE)
@over_inputs("dtype", (torch.float32, torch.float64))
@over_inputs(("d", "n_workers"), UNEVEN)
@pytest.mark.slow
def test_a_separable_method_has_the_same_bits_however_its_vector_is_split(name, dtype, d, n_workers):
    problem = quadratic(d=d, n_workers=n_workers)
    runs = {
        layout: Run(SAMPLES[name], problem, lr=0.02, dtype=dtype, layout=layout, frames="encoded")
        for layout in ("rank0", "dedicated", "sharded")
    }
    paths = {layout: run.path(4) for layout, run in runs.items()}
    assert len(runs["sharded"].sim.servers) == min(d, n_workers)
    assert paths["rank0"].dtype == dtype
    for layout in ("dedicated", "sharded"):
        assert torch.equal(paths[layout], paths["rank0"])
        assert torch.equal(runs[layout].state().server_residual, runs["rank0"].state().server_residual)
        assert torch.equal(runs[layout].state().residuals, runs["rank0"].state().residuals)


@over_inputs("name", [name for name in SAMPLES if name not in SEPARABLE])
def test_a_method_that_is_not_separable_is_not_split(name):
    with pytest.raises(ValueError, match="would change the result; use rank0 or dedicated"):
        Run(SAMPLES[name], quadratic(), layout="sharded")


# Order of delivery, and seeds.


@pytest.mark.slow
@each_case
def test_delivering_in_a_random_order_changes_no_bit(name, layout):
    problem = quadratic(n_workers=5, d=11)
    one, other = (
        Run(SAMPLES[name], problem, lr=0.02, layout=layout, delivery_seed=delivery_seed) for delivery_seed in (None, 1)
    )
    assert torch.equal(one.path(5), other.path(5))
    assert torch.equal(one.state().server_residual, other.state().server_residual)


def seeded(name, seed):
    problem = quadratic(n_workers=3)
    run = with_recording_meters(Run(SAMPLES[name], problem, lr=0.02, layers=LAYERS, seed=seed, frames="encoded"))
    run.path(6)
    return run


def bytes_of(run):
    """Every frame that every worker sent and received."""
    frames = [frames for worker in run.sim.workers for frames in worker.meter.seen.values()]
    return [bytes(encode(frame).numpy()) for exchanged in frames for frame, *_ in exchanged]


@each_sample
def test_one_seed_gives_the_same_bytes_counts_and_path_again(name):
    one, again = seeded(name, 3), seeded(name, 3)
    assert bytes_of(one) == bytes_of(again)
    assert [w.meter.saved() for w in one.sim.workers] == [w.meter.saved() for w in again.sim.workers]
    assert torch.equal(one.x, again.x)


DRAWING = [name for name in SAMPLES if name.startswith(("compskip", "csgd", "dropsign", "ec-sgd, signs", "powersgd"))]
DRAWING += [name for name in SAMPLES if name.startswith("ssgd-mv")]  # ties


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_draws_other_masks_and_skips(name):
    assert not torch.equal(seeded(name, 3).x, seeded(name, 4).x)


def may_draw(name):
    """Whether a method that is listed nowhere here may depend on the seed: its file asks for a key."""
    cls = type(SAMPLES[name])
    return cls.__name__ not in laconic.__all__ and re.search(
        r"\b(shared_)?key\(|\.uniform\(", inspect.getsource(inspect.getmodule(cls))
    )


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in DRAWING and not may_draw(name)])
def test_a_method_that_draws_nothing_does_not_depend_on_the_seed(name):
    assert bytes_of(seeded(name, 3)) == bytes_of(seeded(name, 4))


def test_masks_differ_between_seeds_ranks_rounds_and_sides():
    runs = [seeded("dropsign", seed) for seed in (3, 4)]
    sampled = {tuple(f.packet.mask.tolist()) for r in runs for w in r.sim.workers for f, *_ in w.meter.seen["up"]}
    sampled |= {tuple(f.packet.mask.tolist()) for r in runs for f, *_ in r.sim.workers[0].meter.seen["down"]}
    assert len(sampled) == 2 * 6 * (3 + 1)
