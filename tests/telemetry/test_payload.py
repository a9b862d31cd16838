"""The counts of each message: payload bits are the paper's bits and the named overheads."""

import pytest
import torch

from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sgd import SGD
from laconic.algorithms.sgd_model import ModelAveraging
from laconic.algorithms.sgd_server import GlobalReplica
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.compressors import Identity, ScaledSign, Sign
from laconic.contract import ModelSpec
from laconic.kernels.reference import hashing as reference_hashing
from laconic.telemetry.meter import Count
from laconic.wire import (
    Dense,
    FractionalValues,
    Levels,
    Positions,
    QuantizedValues,
    ScaledSigns,
    SelectedValues,
    ShortFloats,
    Signs,
    Sparse,
    VoteChange,
)
from support.inputs import failing_at, over_inputs
from support.jobs import matrices_of
from support.methods import CASES, LAYERS, SAMPLES, layouts_of
from support.recording_meter import with_recording_meters
from support.simulated_run import Run, quadratic

ROUNDS = 8
LAYOUTS = {name: [layout for case, layout in CASES if case == name] for name, _ in CASES}
WITH_SERVER = {
    name: [layout for layout in layouts if layout not in ("allreduce", "allgather")]
    for name, layouts in LAYOUTS.items()
    if layouts != ["allreduce"]
}
over_dtypes = over_inputs("dtype", [torch.float32, torch.float64])


def block_width(count, k):
    """(length of a block, bits of a position in one), by FORMAT.md: blocks of count / k, rounded."""
    length = int(count / k + 0.5)
    return length, (length - 1).bit_length()


def position_bits(count, k, code):
    """The exact length of k positions' stream."""
    if k == 0:
        return 0
    if code == "list":
        return k * (count - 1).bit_length()
    assert code == "block"
    length, width = block_width(count, k)
    return k * (1 + width) + -(-count // length)


def printed_position_bits(count, k):
    """The bits by SSGD-MV, 4.3.1: K (ceil(log2 of 1/phi) + 2)."""
    return k * (block_width(count, k)[1] + 2) if k else 0


def overheads_by_hand(packet, dtype):
    """The bits that the formula of the packet's kind leaves out, computed from the packet's own numbers."""
    wide = 32 if dtype == torch.float64 else 0
    if isinstance(packet, Dense):
        return {"value type": (-16 if packet.value_type == torch.bfloat16 else wide) * packet.count}
    if isinstance(packet, (ScaledSigns, Levels)):
        return {"value type": wide * len(packet.lengths)}
    if isinstance(packet, ShortFloats):
        return {"value type": 3 * packet.count if wide else 0}
    if isinstance(packet, FractionalValues):
        return {"level means": (32 + wide) * 2 ** (packet.bits - 1)}
    if isinstance(packet, QuantizedValues):
        return {"ends of ranges": 2 * (32 + wide) * len(packet.lengths)}
    if isinstance(packet, Sparse):
        bits = position_bits(packet.count, packet.indices.numel(), packet.code)
        return {"positions": bits, **overheads_by_hand(packet.values, dtype)}
    if isinstance(packet, Positions):
        k = packet.indices.numel()
        return {"position code": position_bits(packet.count, k, packet.code) - printed_position_bits(packet.count, k)}
    if isinstance(packet, VoteChange):
        k = packet.added.numel()
        streams = position_bits(packet.count, k, packet.code) + position_bits(packet.listed, k, packet.code)
        return {"position code": streams - 2 * printed_position_bits(packet.count, k)}
    assert isinstance(packet, (Signs, SelectedValues))
    selected = int(reference_hashing.keep_mask(packet.offset, packet.count, packet.key, packet.threshold).sum())
    missed = selected - packet.count * packet.threshold / 2**32
    if isinstance(packet, Signs):
        return {"mask drawn, not expected": missed}
    return {"mask drawn, not expected": 32 * missed, "value type": wide * selected}


def paper_bits_beside(name, direction, packet):
    """The method's paper bits in addition to the formula of the packet's kind."""
    if name.startswith(("ssgd-topk", "sparseloco")) and isinstance(packet, Sparse):
        return printed_position_bits(packet.count, packet.indices.numel())  # SSGD-MV counts positions, SASG does not
    if name.startswith(("sparse", "sasg")) and direction == "down":
        return -32 * packet.count  # SASG does not count downloads
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_SERVER)
@over_dtypes
def test_payload_is_the_papers_bits_and_the_named_overheads_message_by_message(name, dtype):
    for layout in WITH_SERVER[name]:
        with failing_at(layout=layout):
            assert_paper_bits_of_every_message(name, layout, dtype)


def assert_paper_bits_of_every_message(name, layout, dtype):
    sample = SAMPLES[name]
    problem = quadratic(n_workers=3)
    run = with_recording_meters(
        Run(sample, problem, lr=0.02, dtype=dtype, layout=layout, layers=LAYERS, frames="encoded")
    )
    run.path(ROUNDS)
    for worker in run.sim.workers:
        for direction in ("up", "down"):
            total = 0
            for frame, paper_bits, flag_bit in worker.meter.seen[direction]:
                assert flag_bit == sample.skips
                total += sample.skips  # "this is no skip", or that it is one
                if frame.packet is None:
                    assert paper_bits == 0
                    assert frame.payload_bits == 1
                    continue
                by_hand = overheads_by_hand(frame.packet, dtype)
                named = frame.packet.named_overheads.items()
                assert {key: bits for key, bits in named if bits} == {k: bits for k, bits in by_hand.items() if bits}
                overheads = sum(by_hand.values()) - paper_bits_beside(name, direction, frame.packet)
                assert frame.payload_bits - paper_bits == pytest.approx(overheads, abs=1e-9)
                total += frame.payload_bits
            assert worker.meter.counts[direction].payload_bits == total > 0


@pytest.mark.parametrize("name", [name for name, layouts in LAYOUTS.items() if "allreduce" in layouts])
@over_dtypes
def test_without_a_server_the_same_bits_are_counted_as_with_one(name, dtype):
    counts = []
    for layout in ("rank0", "allreduce"):
        run = Run(SAMPLES[name], quadratic(n_workers=3), lr=0.02, dtype=dtype, layout=layout, layers=LAYERS)
        run.path(ROUNDS)
        counts.append(
            {
                (worker.rank, direction, exchange): (count.messages, count.payload_bits, count.paper_bits)
                for worker in run.sim.workers
                for direction in ("up", "down")  # with one, worker 0 counts what it serves besides
                for exchange, count in worker.meter.by_exchange[direction].items()
            }
        )
    assert counts[0] == counts[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_counts_by_exchange_add_up_to_the_counts(name):
    sample = SAMPLES[name]
    spec = matrices_of(*LAYERS)
    names = {exchange.name for t in range(ROUNDS) for exchange in sample.exchanges_in(t, spec)}
    for layout in LAYOUTS[name]:
        run = Run(sample, quadratic(n_workers=3), lr=0.02, layout=layout, layers=LAYERS)
        run.path(ROUNDS)
        for worker in run.sim.workers:
            for direction in ("up", "down"):
                with failing_at(layout=layout, rank=worker.rank, direction=direction):
                    by_exchange = worker.meter.by_exchange[direction]
                    assert set(by_exchange) == names
                    assert sum(by_exchange.values(), Count()) == worker.meter.counts[direction]
                    assert all(count.messages > 0 for count in by_exchange.values())


def test_positions_and_values_of_a_vote_are_counted_apart_to_the_bit():
    """37 coordinates, K = 9, ten blocks of 4: a list takes 9 (1 + 2) + 10 bits, the paper says 9 (2 + 2)."""
    run = Run(SSGDMV(density=0.25, bits=4), quadratic(n_workers=3), lr=0.02, dtype=torch.float32)
    run.path(ROUNDS)
    for worker in run.sim.workers:
        found = {
            (direction, name): (count.payload_bits / ROUNDS, count.paper_bits / ROUNDS)
            for direction in ("up", "down")
            for name, count in worker.meter.by_exchange[direction].items()
        }
        assert found == {
            ("up", "positions"): (37, 36),
            ("up", "values"): (9 * 4 + 32 * 8, 36),
            ("down", "positions"): (37, 36),
            ("down", "values"): (9 * 32, 9 * 32),
        }


def test_paper_bits_of_the_union_that_comes_back_are_those_of_its_size_and_not_of_the_worst():
    problem = quadratic(n_workers=3)
    run = with_recording_meters(Run(SSGDTopK(density=0.1), problem, lr=0.02, dtype=torch.float32, frames="encoded"))
    run.path(ROUNDS)
    unions = [frame.packet.indices.numel() for frame, *_ in run.sim.workers[0].meter.seen["down"]]
    assert min(unions) < max(unions) <= 3 * 3
    paper_bits_of = sum(32 * k + printed_position_bits(37, k) for k in unions)
    assert run.sim.workers[0].meter.counts["down"].paper_bits == paper_bits_of


FIXED_SIZE = [
    SGD(),
    ModelAveraging(),
    GlobalReplica(),
    ECSGD(),
    ECSGD(compressor=ScaledSign(blocks="5"), server_compressor=ScaledSign(blocks="vector")),
    ECSGD(compressor=Sign(), server_compressor=Identity()),
    SignSGDMajorityVote(),
    DistEFBlockwise(),
    DropSign(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0),
]


@pytest.mark.parametrize("sample", FIXED_SIZE, ids=repr)
def test_where_the_size_is_fixed_a_float32_run_pays_the_papers_formula_to_the_bit(sample):
    formula = sample.paper_bits(ModelSpec.of_sizes(*LAYERS))
    for layout in layouts_of(sample, 4):
        run = Run(sample, quadratic(n_workers=3), lr=0.02, dtype=torch.float32, layout=layout, layers=LAYERS)
        run.path(7)
        for worker in run.sim.workers:
            for direction, bits in zip(("up", "down"), formula, strict=True):
                count = worker.meter.counts[direction]
                assert (count.payload_bits, count.paper_bits) == (7 * bits, 7 * bits), (layout, worker.rank, direction)


def test_a_run_in_a_layout_that_its_method_does_not_admit_is_refused():
    for sample in FIXED_SIZE:
        for layout in {"allreduce", "rank0", "dedicated", "sharded"} - set(layouts_of(sample, 4)):
            reason = f"layout='{layout}' does not go with {sample.name}"
            with failing_at(sample=sample, layout=layout), pytest.raises(ValueError, match=reason):
                Run(sample, quadratic(), layout=layout)


@pytest.mark.parametrize("name", ["sparse", "sparse, list", "ssgd-mv"])
def test_where_the_size_is_fixed_paper_bits_of_every_round_are_the_papers_formula(name):
    sample = SAMPLES[name]
    run = Run(sample, quadratic(n_workers=3), lr=0.02, layers=LAYERS)
    run.path(7)
    for worker in run.sim.workers:
        paper_bits_of = tuple(worker.meter.counts[direction].paper_bits / 7 for direction in ("up", "down"))
        assert paper_bits_of == sample.paper_bits(ModelSpec.of_sizes(*LAYERS))


@over_inputs("layout", ["rank0", "sharded"])
def test_paper_bits_of_compskip_are_the_papers_for_each_round_that_was_not_skipped(layout):
    run = Run(SAMPLES["compskip"], quadratic(n_workers=3), lr=0.02, layout=layout)
    run.path(20)
    for worker in run.sim.workers:
        for direction, keep in (("up", 0.3), ("down", 0.5)):
            count = worker.meter.counts[direction]
            assert count.paper_bits == pytest.approx((20 - count.skips) * keep * 37)
            assert 0 < count.skips < 20


@over_inputs("layout", ["rank0", "sharded"])
def test_paper_bits_of_sasg_are_its_values_for_each_upload_and_nothing_for_a_skip(layout):
    sample = SAMPLES["sasg, skipping"]
    run = Run(sample, quadratic(n_workers=3), lr=0.02, layout=layout, layers=LAYERS)
    run.path(30)
    for worker in run.sim.workers:
        up = worker.meter.counts["up"]
        assert up.paper_bits == (30 - up.skips) * 32 * (5 + 1 + 4)
        assert 5 < up.skips < 30
        assert worker.meter.counts["down"].paper_bits == 0
