"""The effect of each fault in the simulator: on residuals, bytes and the clock; on users' models and runs."""

import json
import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.algorithms.ec_sgd import ECSGD
from laconic.cli.train_report import print_table
from laconic.compressors import Identity
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.faults.plan import Event, FaultPlan
from laconic.lab.runs.files import write_record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.network import Link
from laconic.protocol.round_inputs import Inputs
from laconic.wire import HEADER_BYTES, Frame, decode, encode
from support import methods, small_model
from support.frame_bytes import HEADER
from support.packets import BY_KIND
from support.sample_packets import packets

# Four numbers of float32 a packet: 32 + 8 + 16 bytes.

D = 4
FRAME_BYTES = HEADER_BYTES + 8 + 4 * D
LINK = Link(bytes_per_s=FRAME_BYTES * 1e3)  # a packet takes a millisecond
MS = 10**6


@dataclass(frozen=True, kw_only=True)
class WatchedReplies(ECSGD):
    """Error feedback with a lossless compressor; it records what both sides received in each round."""

    compressor: Identity = field(default_factory=Identity)
    server_compressor: Identity = field(default_factory=Identity)
    delivered: dict = field(default_factory=dict)
    inbox: dict = field(default_factory=dict)

    def work(self, me):
        step = super().work(me)
        reply = yield next(step)
        self.delivered[me.round, me.rank] = reply.delivered
        try:
            step.send(reply)
        except StopIteration as end:
            return end.value

    def serve(self, server, inbox):
        self.inbox[server.round] = list(inbox)
        return super().serve(server, inbox)


class FaultyJob:
    """Three workers and a dedicated server; all elements of worker r's gradient are r + 1."""

    def __init__(self, plan, **setup):
        self.algorithm = WatchedReplies()
        self.driver = Simulated(
            self.algorithm,
            spec=ModelSpec.of_sizes(D),
            n_workers=3,
            faults=plan,
            **({"layout": "dedicated", "link": LINK} | setup),
        )
        self.asked = []

    def round(self, factor_of=lambda rank: 1.0):
        """Run one round; returns its duration in nanoseconds."""
        before = self.driver.clock.now_ns
        self.outcome = self.driver.round(lambda rank: self._inputs(rank, factor_of(rank)), lr=0.1)
        return self.driver.clock.now_ns - before

    def _inputs(self, rank, factor):
        self.asked.append((self.driver.rounds, rank))
        return Inputs(vector=torch.full((D,), rank + 1.0) * factor, parameters=torch.zeros(D))

    def residual(self, rank):
        return self.driver.workers[rank].me.memory["residual"][0].item()

    def count(self, rank, direction="up"):
        return self.driver.workers[rank].meter.counts[direction]


def at_round_0(kind, worker=1):
    return FaultPlan(events=(Event(round=0, worker=worker, kind=kind),))


@pytest.mark.parametrize("kind", ["lost", "late", "corrupted"])
def test_a_packet_that_is_not_delivered_is_counted_stored_as_residual_and_sent_in_the_next_round(kind):
    job = FaultyJob(at_round_0(kind))
    job.round()
    assert job.algorithm.delivered == {(0, 0): True, (0, 1): False, (0, 2): True}
    assert job.algorithm.inbox[0] == [0, 2]
    assert job.outcome.of(0).tolist() == pytest.approx([4 / 3] * D)
    assert job.driver.lock_step.unread == ({1} if kind == "corrupted" else set())
    assert [job.residual(rank) for rank in range(3)] == [0, 2, 0]
    assert job.count(1).wire_bytes == FRAME_BYTES
    assert job.driver.injector.counts == [{}, {kind: 1}, {}]
    job.round()
    assert job.outcome.of(0).tolist() == pytest.approx([(1 + 4 + 3) / 3] * D)
    assert [job.residual(rank) for rank in range(3)] == [0, 0, 0]


def test_a_packet_that_comes_twice_is_used_once_and_its_bytes_counted_twice():
    job, usual = FaultyJob(at_round_0("duplicated")), FaultyJob(None)
    for each in (job, usual):
        each.round()
    assert torch.equal(job.outcome.of(0), usual.outcome.of(0))
    assert job.algorithm.delivered[0, 1]
    assert job.count(1) == replace(usual.count(1), messages=2, wire_bytes=2 * FRAME_BYTES)
    assert job.driver.injector.counts[1] == {"duplicated": 1}


def test_whichever_bit_is_flipped_the_server_refuses_the_frame():
    bits = set()
    for seed in range(40):
        plan = replace(at_round_0("corrupted"), seed=seed)
        bits.add(plan.damaged_bit(1, 0, 0, 8 * FRAME_BYTES))
        job = FaultyJob(plan)
        job.round()
        assert job.driver.lock_step.unread == {1}
    assert len(bits) > 30


@pytest.mark.parametrize(
    ("kind", "rounds_ms"),
    [(None, [6, 6]), ("lost", [6, 6]), ("corrupted", [6, 6]), ("duplicated", [6, 6]), ("late", [5, 7])],
)
def test_the_clock_by_hand(kind, rounds_ms):
    """Three packets in a row to one server, three answers in a row. A copy comes behind the others, while the server
    answers; a late packet is sent when the answers have arrived."""
    job = FaultyJob(at_round_0(kind) if kind else None)
    assert [job.round() / MS, job.round() / MS] == rounds_ms


def test_a_server_does_not_wait_for_the_last_packet_if_that_is_lost():
    job = FaultyJob(at_round_0("lost", worker=2))
    assert job.round() == 5 * MS


def test_a_straggler_delays_the_round_by_its_additional_computing_time():
    job = FaultyJob(FaultPlan(stragglers={2: 5.0}), compute_s=0.01)
    assert job.round() == (50 + 1 + 3) * MS
    own = FaultyJob(FaultPlan(stragglers={0: 5.0}), compute_s=0.01, layout="rank0")
    assert own.round() == (50 + 2) * MS
    plan = FaultPlan(seed=1, straggle=0.3, straggle_factor=5.0)
    sometimes = FaultyJob(plan, compute_s=0.01)
    slow = [sum(plan.compute_factor(rank, round_) > 1 for rank in range(3)) for round_ in range(10)]
    assert [sometimes.round() / MS for _ in range(10)] == [50 + 3 + n if n else 10 + 6 for n in slow]
    assert {0, 1} < set(slow)


def test_a_slow_link_takes_longer_by_its_factor_in_both_directions():
    assert FaultyJob(FaultPlan(slow_links={1: 0.25})).round() == (1 + 4 + 1) * 2 * MS


def test_a_crashed_worker_computes_nothing_and_keeps_its_memories():
    plan = FaultPlan(crash_rounds=2, events=(Event(round=1, worker=1, kind="crashed"), *at_round_0("lost").events))
    job = FaultyJob(plan)
    before = job.count(1, "setup")
    for _ in range(3):
        job.round()
        assert job.residual(1) == 2
    assert job.asked == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 2)]
    assert job.outcome.of(1).tolist() == pytest.approx([4 / 3] * D)
    assert job.count(1, "setup") == before
    job.round()
    assert job.residual(1) == 0
    assert job.outcome.of(0).tolist() == pytest.approx([8 / 3] * D)
    assert job.count(1, "setup").wire_bytes == before.wire_bytes + 4 * D
    assert job.count(1).messages == job.count(1, "down").messages == 2
    assert job.driver.injector.counts[1] == {"lost": 1, "crashed": 2}


def test_with_all_workers_down_a_round_is_empty():
    crashes = (Event(round=1, worker=rank, kind="crashed") for rank in range(3))
    job = FaultyJob(FaultPlan(events=(*crashes, *at_round_0("lost").events)))
    job.round()
    residuals = [job.residual(rank) for rank in range(3)]
    assert job.round() == 0
    assert job.outcome.aborted
    assert job.outcome.results == {}
    assert [job.residual(rank) for rank in range(3)] == residuals == [0, 2, 0]
    assert list(job.algorithm.inbox) == [0]
    assert job.round() == 6 * MS
    assert (job.driver.rounds, job.driver.aborted_rounds) == (3, 0)


@pytest.mark.parametrize("kind", ["lost", "late", "corrupted", "duplicated"])
def test_a_control_frame_that_aborts_the_round_is_always_delivered(kind):
    job = FaultyJob(at_round_0(kind))
    job.round(lambda rank: math.nan if rank == 1 else 1.0)
    assert job.outcome.aborted
    assert [job.residual(rank) for rank in range(3)] == [0, 0, 0]
    assert job.driver.aborted_rounds == 1
    assert job.driver.injector.counts == [{}, {}, {}]


# Tampering.


@pytest.mark.slow
@settings(deadline=None)
@given(packets, st.sampled_from([-1.0, 0.25, -3.0, 1e-3, 1e200]))
def test_tampering_multiplies_what_a_packet_of_values_stands_for_and_the_result_can_be_sent(packet, factor):
    tampered = packet.scaled(factor)
    again = decode(encode(Frame(header=HEADER, packet=tampered)), 2**32).packet
    assert torch.equal(again.dense(), tampered.dense())
    kind = BY_KIND[packet.name]
    if kind.scales == "nothing":
        assert tampered is packet
        return
    expected = packet.dense().double() * math.copysign(1 if kind.scales == "signs" else abs(factor), factor)
    largest, smallest = torch.finfo(packet.value_type).max, torch.finfo(packet.value_type).tiny
    expected = expected.clamp(-largest, largest)
    if abs(factor) < 1e100:  # beyond that, ends and scales overflow to the largest value, and do not keep their ratio
        error = (tampered.dense().double() - expected).abs()
        assert (error <= kind.scaling_error(packet, expected) + 8 * smallest).all()


# With a user's model, and from the command line.


def simulated(plan, **setup):
    net = small_model.net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return net, laconic.Simulation(
        net, optimizer, methods.with_test_settings("ec-sgd"), workers=3, faults=plan, **setup
    )


@pytest.mark.parametrize("local_steps", [1, 3])
def test_a_worker_that_is_down_takes_no_step_and_has_no_loss(local_steps):
    events = [Event(round=1, worker=1, kind="crashed"), *(Event(round=2, worker=r, kind="crashed") for r in range(3))]
    net, simulation = simulated(FaultPlan(events=tuple(events)), local_steps=local_steps)
    asked = []

    def loss_of(rank):
        asked.append(rank)
        return small_model.loss(net, rank, len(asked))

    downs = [set(), {1}, {0, 1, 2}, set()]
    for step in range(4 * local_steps):
        down = downs[step // local_steps]
        asked.clear()
        before = small_model.values(net)
        assert simulation.down == down
        losses = simulation.step(loss_of)
        assert asked == [rank for rank in range(3) if rank not in down]
        assert [math.isnan(loss) for loss in losses] == [rank in down for rank in range(3)]
        exchanged = (step + 1) % local_steps == 0 and len(down) < 3
        assert torch.equal(small_model.values(net), before) != exchanged
    assert simulation.traffic.faults == {"crashed": 4}
    assert simulation.traffic_of(1).faults == {"crashed": 2}
    assert simulation.traffic.rounds == 4


PLAN = FaultPlan(seed=1, lost=0.1, corrupted=0.1, duplicated=0.1, crashed=0.1)
SETTINGS = {"algorithm": "ec-sgd", "model": "linear", "workers": 3, "batch_size": 80, "epochs": 2, "seed": 2}


def test_a_run_with_faults_writes_its_plan_and_counts_and_prints_them_in_one_line(tmp_path, capsys):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.to_toml())
    record = run_simulated(RunSettings(**SETTINGS, faults=str(path)), lambda progress: None)
    assert set(record.traffic.faults) == {"lost", "corrupted", "duplicated", "crashed"}
    assert all(0 < row.train_loss < 5 for row in record.rows)
    write_record(tmp_path / "out", record)
    print_table([record], lr_by_method=False)
    reported = ", ".join(f"{count} {kind}" for kind, count in sorted(record.traffic.faults.items()))
    assert f"ec-sgd: faults: {reported}\n" in capsys.readouterr().out
    assert FaultPlan.from_toml((tmp_path / "out" / "faults.toml").read_text()) == PLAN
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["traffic"]["faults"] == record.traffic.faults


def test_a_run_without_faults_prints_nothing_about_them(tmp_path, capsys):
    record = run_simulated(RunSettings(**SETTINGS), lambda progress: None)
    write_record(tmp_path, record)
    print_table([record], lr_by_method=False)
    assert record.traffic.faults == {}
    assert "faults:" not in capsys.readouterr().out
    assert not (tmp_path / "faults.toml").exists()
