"""What must not change anything, and what must be counted exactly, for every algorithm.

Faults of sign and scale, meters, replicas, who gets which data, how many servers, order of delivery, seeds.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from laconic import ALGORITHMS
from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sgd import SGD
from laconic.algorithms.sgd_model import ModelAveraging
from laconic.algorithms.sgd_server import GlobalReplica
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.compressors import DenseValues, Identity, ScaledSign, Sign, signs
from laconic.contract import ContractError, algorithm
from laconic.drivers.layout import LAYOUTS
from laconic.kernels import plain
from laconic.skipping import Never
from laconic.wire import Dense, Meter, ScaledSigns, Signs, encode
from trajectories import Run, assert_same, linear, normal, quadratic

LAYERS = (20, 1, 16)  # of 37
SAMPLES = {name: cls(**cls.toy) for name, cls in sorted(ALGORITHMS.items()) if not name.startswith("test-")} | {
    "ec-sgd, signs": ECSGD(compressor=Sign(keep=0.4), server_compressor=Sign()),
    "ec-sgd, bfloat16": ECSGD(
        compressor=DenseValues(value_type="bfloat16"), server_compressor=DenseValues(value_type="bfloat16")
    ),
    "compskip, all kept": CompSkip(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0, decay=0.8),
}
each_sample = pytest.mark.parametrize("name", SAMPLES)


def layouts_of(sample):
    """The layouts that a method admits, as `choose_layout` refuses the others."""
    adds = any(exchange.adds for exchange in sample.exchanges(100))
    admitted = ["rank0", "dedicated"] + ["sharded"] * sample.separable + ["allreduce"] * adds
    return [server for server in LAYOUTS if server in admitted]


CASES = [(name, server) for name, sample in SAMPLES.items() for server in layouts_of(sample)]
each_case = pytest.mark.parametrize(("name", "server"), CASES)


# Signs carry no scale, and a minority of liars changes no unanimous vote.


@dataclass(frozen=True, kw_only=True)
class RescaledDropSign(DropSign):
    """A link multiplies what one worker wishes by a positive number before its signs are taken."""

    def work(self, me):
        momentum = self.momentum * me.memory["momentum"] + me.gradient
        wish = self.momentum * momentum + me.gradient + me.memory["debt"]
        me.memory["momentum"] = momentum
        factor = [1.0, 1e-3, 700.0, 3.0][(me.rank + me.round) % 4]
        sent = signs(factor * wish, keep=self.keep, key=me.key("mask"))
        reply = yield sent
        me.memory["debt"] = wish - self.c * sent.dense()
        return reply.dense()


def test_positive_rescaling_before_the_signs_leaves_dropsign_bit_identical():
    rescaled = Run(RescaledDropSign(c=1.0, server_c=1.0), quadratic(), lr=0.03)
    assert torch.equal(rescaled.path(25), Run(DropSign(c=1.0, server_c=1.0), quadratic(), lr=0.03).path(25))


@dataclass(frozen=True, kw_only=True)
class SignInverters(SignSGDMajorityVote):
    """`liars` workers, others each round, send the opposite of what they mean."""

    liars: int

    def work(self, me):
        step = super().work(me)
        packet = next(step)
        if (me.rank - 2 * me.round) % me.n_workers < self.liars:
            packet = replace(packet, negative=~packet.negative)
        reply = yield packet
        try:
            step.send(reply)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("liars", range(8))
def test_sign_inverters_turn_a_unanimous_vote_only_when_they_are_the_majority(liars):
    problem = linear(normal(37, key=5), n_workers=7)
    honest = Run(SignSGDMajorityVote(), problem, lr=0.01)
    run = Run(SignInverters(liars=liars), problem, lr=0.01)
    for _ in range(8):
        assert torch.equal(run.step(), honest.step() if liars < 3.5 else -honest.step())


# Payload bits are the paper's bits and the named overheads, message by message.


class Ledger(Meter):
    """A meter that keeps every frame it counts."""

    def __init__(self):
        super().__init__()
        self.frames = {"up": [], "down": []}

    def frame(self, direction, frame, n_bytes, *, flag_bit, **facts):
        self.frames[direction].append((frame, flag_bit))
        super().frame(direction, frame, n_bytes, flag_bit=flag_bit, **facts)


def with_ledgers(run):
    for worker in run.sim.workers:
        worker.meter = Ledger()
    return run


def overheads_by_hand(packet, dtype):
    """What the paper's formula leaves out, from the packet's own numbers."""
    wide = 32 if dtype == torch.float64 else 0
    if isinstance(packet, Dense):
        return {"value type": (-16 if packet.value_type == torch.bfloat16 else wide) * packet.count}
    if isinstance(packet, ScaledSigns):
        return {"value type": wide * len(packet.lengths)}
    assert isinstance(packet, Signs)
    kept = int(plain.keep_mask(packet.first, packet.count, packet.key, packet.threshold).sum())
    return {"mask drawn, not expected": kept - packet.count * packet.threshold / 2**32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@each_case
def test_payload_is_the_papers_bits_and_the_named_overheads_message_by_message(name, server, dtype):
    sample = SAMPLES[name]
    run = with_ledgers(Run(sample, quadratic(n_workers=3), lr=0.02, dtype=dtype, server=server, layers=LAYERS))
    run.path(12)
    for worker in run.sim.workers:
        for direction in ("up", "down"):
            count = worker.meter.counts[direction]
            overheads = 0.0
            for frame, flag_bit in worker.meter.frames[direction]:
                assert flag_bit == sample.skips
                overheads += 1 if sample.skips else 0  # "this is no skip", or that it is one
                if frame.packet is not None:
                    by_hand = overheads_by_hand(frame.packet, dtype)
                    named = frame.packet.named_overheads.items()
                    assert {key: bits for key, bits in named if bits} == {
                        k: bits for k, bits in by_hand.items() if bits
                    }
                    overheads += sum(by_hand.values())
            if server == "allreduce":
                assert not worker.meter.frames[direction]
                overheads = 12 * 37 * (32 if dtype == torch.float64 else 0)
            assert count.payload_bits - count.paper_bits == pytest.approx(overheads, abs=1e-6)
            assert count.payload_bits > 0


@pytest.mark.parametrize("server", ["allreduce", "rank0", "dedicated", "sharded"])
@pytest.mark.parametrize(
    "sample",
    [
        SGD(),
        ModelAveraging(),
        GlobalReplica(),
        ECSGD(),
        ECSGD(compressor=ScaledSign(blocks="5"), server_compressor=ScaledSign(blocks="vector")),
        ECSGD(compressor=Sign(), server_compressor=Identity()),
        SignSGDMajorityVote(),
        DistEFBlockwise(),
        DropSign(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0),
    ],
    ids=repr,
)
def test_where_the_size_is_fixed_a_float32_run_pays_the_papers_formula_to_the_bit(sample, server):
    if server not in layouts_of(sample):
        with pytest.raises(ValueError, match=f"server='{server}' does not go with {sample.name}"):
            Run(sample, quadratic(), server=server)
        return
    run = Run(sample, quadratic(n_workers=3), lr=0.02, dtype=torch.float32, server=server, layers=LAYERS)
    run.path(7)
    formula = sample.paper_bits(37, LAYERS)
    for worker in run.sim.workers:
        for direction, bits in zip(("up", "down"), formula, strict=True):
            count = worker.meter.counts[direction]
            assert (count.payload_bits, count.paper_bits) == (7 * bits, 7 * bits)


@pytest.mark.parametrize("server", ["rank0", "sharded"])
def test_compskip_is_charged_the_papers_bits_for_each_round_that_was_not_skipped(server):
    run = Run(SAMPLES["compskip"], quadratic(n_workers=3), lr=0.02, server=server)
    run.path(20)
    for worker in run.sim.workers:
        for direction, keep in (("up", 0.3), ("down", 0.5)):
            count = worker.meter.counts[direction]
            assert count.paper_bits == pytest.approx((20 - count.skips) * keep * 37)
            assert 0 < count.skips < 20


# Replicas.


@pytest.fixture
def cheat():
    """An algorithm that claims equal replicas and gives worker 2 something else from round 3 on."""

    @algorithm("test-cheat")
    @dataclass(frozen=True, kw_only=True)
    class Cheat(SGD):
        def work(self, me):
            reply = yield from super().work(me)
            return reply + 2**-40 if me.rank == 2 and me.round >= 3 else reply

    yield Cheat
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


@each_case
def test_after_each_round_every_worker_has_the_same_result(name, server):
    run = Run(SAMPLES[name], quadratic(n_workers=3), lr=0.02, server=server)
    for _ in range(5):
        applied = run.step()
        assert all(torch.equal(worker.result, applied) for worker in run.sim.workers)


# Who gets which data.

SYMMETRIC = [
    SGD(),
    ModelAveraging(),
    GlobalReplica(),
    ECSGD(),
    SignSGDMajorityVote(),
    DistEFBlockwise(),
    DropSign(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0),
    CompSkip(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0, skip=Never(), server_skip=Never()),
]


@pytest.mark.parametrize("sample", SYMMETRIC, ids=lambda sample: sample.name)
def test_dealing_the_data_to_the_workers_in_another_order_changes_nothing(sample):
    problem = quadratic(n_workers=5)
    order = [2, 0, 4, 1, 3]
    one = Run(sample, problem, lr=0.02, layers=LAYERS)
    other = Run(sample, problem.dealt(order), lr=0.02, layers=LAYERS)
    assert_same(other.path(20), one.path(20))
    assert_same(other.state().debts, one.state().debts[order], one.state().gradients, to=1e-11)


# Separable claims.

SEPARABLE = [name for name, sample in SAMPLES.items() if sample.separable]


@pytest.mark.parametrize(("d", "n_workers"), [(23, 4), (3, 5)], ids=["4-do-not-divide-23", "3-entries-for-5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SEPARABLE)
def test_a_separable_method_has_the_same_bits_however_its_vector_is_cut(name, dtype, d, n_workers):
    problem = quadratic(d=d, n_workers=n_workers)
    runs = {
        server: Run(SAMPLES[name], problem, lr=0.02, dtype=dtype, server=server)
        for server in ("rank0", "dedicated", "sharded")
    }
    paths = {server: run.path(6) for server, run in runs.items()}
    assert len(runs["sharded"].sim.servers) == min(d, n_workers)
    assert paths["rank0"].dtype == dtype
    for server in ("dedicated", "sharded"):
        assert torch.equal(paths[server], paths["rank0"])
        assert torch.equal(runs[server].state().server_debt, runs["rank0"].state().server_debt)
        assert torch.equal(runs[server].state().debts, runs["rank0"].state().debts)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in SEPARABLE])
def test_a_method_that_is_not_separable_is_not_cut(name):
    with pytest.raises(ValueError, match="would change the result; use rank0 or dedicated"):
        Run(SAMPLES[name], quadratic(), server="sharded")


# Order of delivery, and seeds.


@each_case
def test_delivering_in_a_random_order_changes_no_bit(name, server):
    problem = quadratic(n_workers=5, d=11)
    one, other = (
        Run(SAMPLES[name], problem, lr=0.02, server=server, delivery_seed=delivery_seed) for delivery_seed in (None, 1)
    )
    assert torch.equal(one.path(5), other.path(5))
    assert torch.equal(one.state().server_debt, other.state().server_debt)


def seeded(name, seed):
    run = with_ledgers(Run(SAMPLES[name], quadratic(n_workers=3), lr=0.02, layers=LAYERS, seed=seed))
    run.path(6)
    return run


def bytes_of(run):
    """Every frame that every worker sent and got."""
    frames = [frames for worker in run.sim.workers for frames in worker.meter.frames.values()]
    return [bytes(encode(frame).numpy()) for exchanged in frames for frame, _ in exchanged]


@each_sample
def test_one_seed_gives_the_same_bytes_counts_and_path_again(name):
    one, again = seeded(name, 3), seeded(name, 3)
    assert bytes_of(one) == bytes_of(again)
    assert [w.meter.saved() for w in one.sim.workers] == [w.meter.saved() for w in again.sim.workers]
    assert torch.equal(one.x, again.x)


DRAWING = ["compskip", "compskip, all kept", "dropsign", "ec-sgd, signs"]


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_draws_other_masks_and_coins(name):
    assert not torch.equal(seeded(name, 3).x, seeded(name, 4).x)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in DRAWING])
def test_a_method_that_draws_nothing_does_not_depend_on_the_seed(name):
    assert bytes_of(seeded(name, 3)) == bytes_of(seeded(name, 4))


def test_masks_differ_between_seeds_ranks_rounds_and_sides():
    runs = [seeded("dropsign", seed) for seed in (3, 4)]
    drawn = {tuple(f.packet.mask.tolist()) for r in runs for w in r.sim.workers for f, _ in w.meter.frames["up"]}
    drawn |= {tuple(f.packet.mask.tolist()) for r in runs for f, _ in r.sim.workers[0].meter.frames["down"]}
    assert len(drawn) == 2 * 6 * (3 + 1)
