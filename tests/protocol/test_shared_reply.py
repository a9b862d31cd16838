"""The simulator serves the full vector at once and encodes no frames: no bit, byte or nanosecond may depend on it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.compressors import Quantized, dense
from laconic.contract import Algorithm, ModelSpec, Rule, Slot
from laconic.drivers.simulated.rounds import Simulated
from laconic.errors import ContractError
from laconic.kernels.cpu import popcount as cpu_popcount
from laconic.kernels.reference import popcount as reference_popcount
from laconic.network import Link
from laconic.protocol.round_inputs import Inputs
from laconic.wire import HEADER_BYTES, Dense, Frame, ScaledSigns, Sparse, decode, encode
from support.frame_bytes import HEADER
from support.inputs import over_inputs
from support.methods import SAMPLES, WITH_ALL_MEMORIES
from support.packets.dense import dense_packets
from support.packets.positions import position_packets
from support.packets.scaled_signs import scaled_sign_packets
from support.packets.signs import sign_packets
from support.packets.sparse import sparse_packets
from support.simulated_run import Run, quadratic

SEPARABLE = [name for name, sample in SAMPLES.items() if sample.separable]
BOTH = ("sized", "encoded")


def traffic_of(sim):
    return [worker.meter.saved() for worker in sim.workers]


BETWEEN_WORKERS = {
    "csgd-ring": laconic.CSGDRing(),
    "csgd-ring, 4 bits": laconic.CSGDRing(compressor=Quantized(bits=4)),
    "dsgd": laconic.DSGD(),
    "dsgd, choco": WITH_ALL_MEMORIES["dsgd, choco"],
}


@pytest.mark.parametrize("name", BETWEEN_WORKERS)
def test_a_round_between_workers_is_the_same_whether_its_frames_are_encoded_or_not(name):
    sized, encoded = (
        Run(
            BETWEEN_WORKERS[name], quadratic(d=23, n_workers=4), lr=0.02, layout="peers", frames=frames,
            link=Link(bytes_per_s=1e5, latency_s=1e-4), links={1: Link(bytes_per_s=3e4)},
        )
        for frames in BOTH
    )  # fmt: skip
    assert torch.equal(sized.path(6), encoded.path(6))
    assert traffic_of(sized.sim) == traffic_of(encoded.sim)
    assert sized.sim.clock.now_ns == encoded.sim.clock.now_ns


@pytest.mark.slow
@pytest.mark.parametrize("name", SEPARABLE)
@over_inputs(
    ("dtype", "d", "n_workers"),
    [(torch.float32, 23, 4), (torch.float32, 3, 5), (torch.float32, 300, 3), (torch.float64, 23, 4)],
)
def test_a_sharded_round_is_the_same_whether_its_packets_are_split_or_not(name, dtype, d, n_workers):
    problem = quadratic(d=d, n_workers=n_workers)
    full, boundary = (
        Run(
            SAMPLES[name], problem, lr=0.02, dtype=dtype, layout="sharded", frames=frames,
            link=Link(bytes_per_s=1e5, latency_s=1e-4), links={1: Link(bytes_per_s=3e4)},
        )
        for frames in BOTH
    )  # fmt: skip
    assert (len(full.sim.servers), len(boundary.sim.servers)) == (1, min(d, n_workers))
    assert torch.equal(full.path(6), boundary.path(6))
    assert traffic_of(full.sim) == traffic_of(boundary.sim)
    assert full.sim.clock.now_ns == boundary.sim.clock.now_ns
    assert torch.equal(full.state().server_residual, boundary.state().server_residual)
    for one, other in zip(full.sim.workers, boundary.sim.workers, strict=True):
        assert one.me.link_bytes_per_s == other.me.link_bytes_per_s


PLANS = {
    "links that invert": laconic.FaultPlan(seed=3, inverted_links=2),
    "factors": laconic.FaultPlan(seed=3, rescale=(0.25, 4.0)),
    "lost, late and doubled packets": laconic.FaultPlan(seed=3, lost=0.2, late=0.2, duplicated=0.2),
    "crashes": laconic.FaultPlan(seed=3, crashed=0.2, crash_rounds=2),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SEPARABLE)
def test_faults_have_the_same_effect_whether_packets_are_split_or_not(name):
    problem, wrong = quadratic(d=23, n_workers=4), []
    for faults, plan in PLANS.items():
        if "links" not in faults and faults != "factors" and not SAMPLES[name].tolerates_absence:
            continue
        both = [
            Run(
                SAMPLES[name], problem, lr=0.02, layout="sharded", frames=frames, faults=plan,
                link=Link(bytes_per_s=1e5, latency_s=1e-4),
            )
            for frames in BOTH
        ]  # fmt: skip
        paths = [run.path(8) for run in both]
        full, boundary = (run.sim for run in both)
        if (
            not torch.equal(*paths)
            or traffic_of(full) != traffic_of(boundary)
            or full.clock.now_ns != boundary.clock.now_ns
            or full.injector.saved() != boundary.injector.saved()
            or (full.frames, boundary.frames) != BOTH
        ):
            wrong.append(faults)
    assert not wrong


def test_only_a_plan_that_flips_bits_has_frames_encoded():
    kinds = {"corrupted": "encoded", "lost": "sized", "duplicated": "sized", "late": "sized"}
    for kind, frames in kinds.items():
        plan = laconic.FaultPlan(**{kind: 0.1})
        sim = Simulated(SAMPLES["ec-sgd"], spec=ModelSpec.of_sizes(10), n_workers=2, layout="rank0", faults=plan)
        assert sim.frames == frames, kind


@pytest.mark.parametrize("name", SAMPLES)
def test_a_round_with_one_server_is_the_same_whether_its_frames_are_encoded_or_not(name):
    problem = quadratic(d=23, n_workers=3)
    link = Link(bytes_per_s=1e5, latency_s=1e-4)
    result_storage, made = (
        Run(SAMPLES[name], problem, lr=0.02, layout="dedicated", frames=frames, link=link) for frames in BOTH
    )
    assert torch.equal(result_storage.path(8), made.path(8))
    assert traffic_of(result_storage.sim) == traffic_of(made.sim)
    assert result_storage.sim.clock.now_ns == made.sim.clock.now_ns
    assert result_storage.sim.servers[0].view.link_bytes_per_s == made.sim.servers[0].view.link_bytes_per_s


def test_an_answer_with_one_non_finite_slice_is_counted_like_split_answers():
    def given_of(rank):
        vector = torch.ones(10)
        vector[7] = 3e38  # two of them add up to infinity
        return Inputs(vector=vector, parameters=torch.zeros(10))

    full, boundary = (
        Simulated(laconic.SGD(), spec=ModelSpec.of_sizes(10), n_workers=4, layout="sharded", frames=frames)
        for frames in BOTH
    )
    assert full.round(given_of, lr=0.1).aborted
    assert boundary.round(given_of, lr=0.1).aborted
    assert traffic_of(full) == traffic_of(boundary)


@settings(deadline=None)  # the initial call may compile
@given(st.data())
def test_the_computed_sizes_of_parts_are_their_encoded_sizes(data):
    packet = data.draw(st.one_of(sign_packets(), dense_packets(), sparse_packets()))
    inner = data.draw(st.lists(st.integers(1, max(1, packet.count - 1)), unique=True, max_size=5))
    bounds = [
        packet.offset + boundary
        for boundary in sorted({0, packet.count, *(boundary for boundary in inner if boundary < packet.count)})
    ]
    for seen in (packet, packet.as_read() or packet):
        sizes = seen.sizes(bounds)
        parts = [packet.part(offset, stop) for offset, stop in pairwise(bounds)]
        n_bytes = [encode(Frame(header=HEADER, packet=part)).numel() for part in parts]
        assert [HEADER_BYTES + encoded_bytes for encoded_bytes in sizes.encoded_bytes] == n_bytes
        assert sizes.payload_bits == [part.payload_bits for part in parts]
        assert sizes.paper_bits == [part.paper_bits for part in parts]


@settings(deadline=None)  # the initial call may compile
@given(sign_packets())
def test_a_packet_that_is_passed_on_equals_its_decoded_frame(packet):
    read = decode(encode(Frame(header=HEADER, packet=packet)), packet.offset + packet.count).packet
    result_storage = packet.as_read()
    assert torch.equal(result_storage.dense(), read.dense())
    assert torch.equal(result_storage.packed, read.packed)
    assert (result_storage.sampled is None) == (read.sampled is None)
    if read.sampled is not None:
        assert torch.equal(result_storage.sampled, read.sampled)
    fields_of_both = [(p.n_selected, p.offset, p.count, p.key, p.threshold, p.dtype) for p in (result_storage, read)]
    assert fields_of_both[0] == fields_of_both[1]


@settings(deadline=None)  # the initial call may compile
@given(position_packets())
def test_positions_that_are_passed_on_equal_their_decoded_frame(packet):
    read = decode(encode(Frame(header=HEADER, packet=packet)), packet.offset + packet.count).packet
    result_storage = packet.as_read()
    assert torch.equal(result_storage.indices, read.indices)
    assert result_storage.indices.dtype == read.indices.dtype
    assert (result_storage.offset, result_storage.count, result_storage.code) == (read.offset, read.count, read.code)
    assert (result_storage.size, result_storage.payload_bits) == (read.size, read.payload_bits)


@settings(deadline=None)  # the initial call may compile
@given(sparse_packets())
def test_sparse_values_that_are_passed_on_equal_their_decoded_frame_and_are_not_the_senders(packet):
    read = decode(encode(Frame(header=HEADER, packet=packet)), packet.offset + packet.count).packet
    result_storage = packet.as_read()
    if result_storage is None:  # values of a kind that only its bytes show
        assert not isinstance(packet.values, Dense)
        return
    if isinstance(packet.values, Dense):
        packet.values.values.zero_()
    assert torch.equal(result_storage.indices, read.indices)
    assert torch.equal(result_storage.values.dense().view(torch.uint8), read.values.dense().view(torch.uint8))
    fields_of_both = [
        (p.offset, p.count, p.code, p.size, p.position_bits, p.n_selected) for p in (result_storage, read)
    ]
    assert fields_of_both[0] == fields_of_both[1]


@settings(deadline=None)  # the initial call may compile
@given(scaled_sign_packets())
def test_scaled_signs_that_are_passed_on_equal_their_decoded_frame_and_scales_are_not_the_senders(packet):
    read = decode(encode(Frame(header=HEADER, packet=packet)), packet.offset + packet.count).packet
    result_storage = packet.as_read()
    packet.scales.zero_()
    assert torch.equal(result_storage.scales, read.scales)
    assert torch.equal(result_storage.packed, read.packed)
    assert (result_storage.lengths, result_storage.offset, result_storage.count, result_storage.size) == (
        read.lengths,
        read.offset,
        read.count,
        read.size,
    )


def test_scaled_signs_that_a_reader_would_refuse_are_not_passed_on():
    packet = ScaledSigns(packed=torch.zeros(1, dtype=torch.uint8), scales=torch.tensor([-1.0]), lengths=(3,), offset=0)
    assert packet.as_read() is None


@given(dense_packets())
def test_dense_values_that_are_passed_on_equal_their_decoded_frame_and_are_not_the_senders(packet):
    read = decode(encode(Frame(header=HEADER, packet=packet)), packet.offset + packet.count).packet
    result_storage = packet.as_read()
    packet.values.zero_()
    assert torch.equal(result_storage.values.view(torch.uint8), read.values.view(torch.uint8))  # -0.0 is not 0.0
    assert (result_storage.values.dtype, result_storage.offset, result_storage.size) == (
        read.values.dtype,
        read.offset,
        read.size,
    )


@pytest.mark.parametrize("name", ["ssgd-mv", "ssgd-mv-ad", "ssgd-topk"])
def test_sparse_results_equal_the_dense_ones(name):
    problem = quadratic(d=40, n_workers=3)
    sparse, written = (
        Simulated(SAMPLES[name], spec=ModelSpec.of_sizes(40), n_workers=3, layout="rank0", sparse_results=wanted)
        for wanted in (True, False)
    )
    for round_ in range(6):
        changes = [problem.gradient(rank, round_, torch.zeros(40)).float() for rank in range(3)]

        def inputs_of(rank, changes=changes):
            return Inputs(vector=changes[rank].clone(), parameters=torch.zeros(40))

        result, expected = (run.round(inputs_of, lr=0.1).of(0) for run in (sparse, written))
        assert isinstance(result, Sparse)
        assert torch.equal(result.dense(), expected)
    assert traffic_of(sparse) == traffic_of(written)


def test_sparse_results_that_differ_between_workers_are_refused():
    class SparseCheat(laconic.SSGDMV):
        def work(self, me):
            result = yield from super().work(me)
            return replace(result, values=dense(result.values.dense() + 1)) if me.rank == 2 else result

    run = Simulated(SparseCheat(k=2), spec=ModelSpec.of_sizes(8), n_workers=3, layout="rank0", sparse_results=True)
    with pytest.raises(ContractError, match="worker 2 returned other values than worker 0 in round 0"):
        run.round(lambda rank: Inputs(vector=torch.ones(8), parameters=torch.zeros(8)), lr=0.1)


@settings(deadline=None)  # the initial call may compile
@given(st.binary(max_size=70), st.data())
def test_set_bits_are_counted_between_bounds(data, draw):
    packed = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    bounds = sorted(draw.draw(st.lists(st.integers(0, 8 * len(data)), min_size=1, max_size=6)))
    assert cpu_popcount.count_ones(packed, bounds) == reference_popcount.count_ones(packed, bounds)


@dataclass(frozen=True, kw_only=True)
class Greedy(Algorithm):
    """Keeps one answer and overwrites the next in place, both of which it may do."""

    worker_slots: ClassVar[Mapping[str, Slot]] = {"stored": Slot(rule=Rule.PER_WORKER)}

    def work(self, me):
        reply = yield dense(me.gradient)
        answer = reply.dense()
        assert torch.equal(answer, torch.full_like(answer, 1.0 + me.round)), "another worker's change"
        if me.round % 2:
            assert torch.equal(me.memory["stored"], torch.full_like(answer, float(me.round)))
        else:
            me.memory["stored"] = answer
        return answer.mul_(1.0) if me.round % 2 == 0 else answer.add_(1.0)

    def serve(self, server, inbox):
        return dense(inbox.sum() / inbox.n_workers)

    def paper_bits(self, spec, n_workers=10):
        return 32.0 * spec.d, 32.0 * spec.d


def test_an_answer_that_one_worker_keeps_or_changes_is_not_shared_with_others():
    run = Simulated(Greedy(), spec=ModelSpec.of_sizes(6), n_workers=3, layout="rank0")
    for round_ in range(6):
        outcome = run.round(
            lambda rank, value=1.0 + round_: Inputs(vector=torch.full((6,), value), parameters=torch.zeros(6)),
            lr=0.1,
        )
        assert torch.equal(outcome.of(0), torch.full((6,), 1.0 + round_ + round_ % 2))
