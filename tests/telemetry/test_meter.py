"""The counts of traffic: encoded bytes, payload bits and paper bits, and why the last two differ."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compressors import COMPRESSORS
from laconic.contract import ModelSpec
from laconic.kernels.reference import hashing as reference_hashing
from laconic.telemetry.meter import Count, Meter
from laconic.wire import HEADER_BYTES, Control, Dense, Frame, ScaledSigns, encode
from support.frame_bytes import HEADER
from support.inputs import over_inputs
from support.packets.dense import dense_packets
from support.packets.signs import sign_packets, signs_of
from support.sample_packets import packets

SKIP = Frame(header=HEADER, control=Control.SKIP)
ABORT = Frame(header=HEADER, control=Control.ABORT)
DENSE = Frame(header=HEADER, packet=Dense(values=torch.ones(10)))


def counted(frame, direction="up", *, local=False, flag_bit=False, lead=True) -> Count:
    """The count of a new meter after one frame of which every byte was sent."""
    meter = Meter()
    paper_bits = 0.0 if frame.packet is None else frame.packet.paper_bits
    meter.frame(
        direction, frame, encode(frame).numel(),
        paper_bits=paper_bits, exchange="update", local=local, flag_bit=flag_bit, lead=lead,
    )  # fmt: skip
    others = [count for other, count in meter.counts.items() if other != direction]
    assert others == [Count(), Count(), Count()]
    return meter.counts[direction]


@over_inputs("direction", ["up", "down", "setup"])
def test_a_packet_counts_its_bytes_with_the_header_and_its_bits_without(direction):
    count = counted(DENSE, direction)
    assert count == Count(messages=1, wire_bytes=HEADER_BYTES + 8 + 40, payload_bits=320, paper_bits=320.0)


def test_a_packet_that_a_rank_sends_to_itself_crosses_no_link():
    count = counted(DENSE, local=True)
    assert count == Count(messages=1, local_bytes=HEADER_BYTES + 8 + 40, payload_bits=320, paper_bits=320.0)


def test_a_skip_counts_one_header_and_one_bit_and_costs_the_paper_nothing():
    assert counted(SKIP) == Count(messages=1, skips=1, skip_messages=1, wire_bytes=HEADER_BYTES, payload_bits=1)
    assert counted(SKIP, flag_bit=True) == counted(SKIP)  # the control frame is its own flag


def test_a_skip_that_was_split_by_servers_is_one_skip_and_as_many_messages_that_are_skips():
    meter = Meter()
    for index in range(3):
        meter.frame(
            "up", SKIP, HEADER_BYTES,
            paper_bits=0.0, exchange="update", local=index == 1, flag_bit=True, lead=index == 0,
        )  # fmt: skip
    bytes_ = {"wire_bytes": 2 * HEADER_BYTES, "local_bytes": HEADER_BYTES}
    assert meter.counts["up"] == Count(messages=3, skips=1, skip_messages=3, payload_bits=3, **bytes_)


def test_an_abort_is_a_message_but_no_skip():
    assert counted(ABORT) == Count(messages=1, wire_bytes=HEADER_BYTES, payload_bits=1)


def test_if_a_method_may_skip_a_packet_that_is_not_skipped_counts_one_bit_more():
    assert counted(DENSE, flag_bit=True).payload_bits == 321
    assert counted(DENSE, flag_bit=True).paper_bits == 320.0


def test_what_a_server_on_the_rank_receives_and_sends_is_counted_beside_its_workers_own_traffic():
    meter = Meter()
    meter.serve(6, 4321, "values")
    assert meter.counts["served"] == Count(messages=6, wire_bytes=4321)
    assert meter.counts["up"] == meter.counts["down"] == Count()
    assert meter.by_exchange["served"] == {"values": Count(messages=6, wire_bytes=4321)}


def test_a_state_saved_before_there_was_such_a_count_is_read_as_none():
    meter = Meter()
    saved = meter.saved()
    for of_kind in saved.values():
        del of_kind["served"]
    del saved["counts"]["up"]["skip_messages"]
    meter.serve(6, 4321, "values")
    meter.restore(saved)
    assert meter.counts["served"] == meter.counts["up"] == Count()


def test_an_engines_collective_is_one_message_of_known_bytes():
    meter = Meter()
    meter.collective("down", 1234, 320, 300.0)
    meter.collective("down", 1, 2, 3.0)
    assert meter.counts["down"] == Count(messages=2, wire_bytes=1235, payload_bits=322, paper_bits=303.0)


@given(st.lists(st.tuples(*(6 * [st.integers(0, 2**40)])), min_size=2, max_size=6))
def test_counts_add_up_field_by_field(rows):
    names = ("messages", "skips", "wire_bytes", "local_bytes", "payload_bits", "paper_bits")
    total = Count()
    for row in rows:
        total += Count(**dict(zip(names, row, strict=True)))
    assert total == Count(**{name: sum(row[i] for row in rows) for i, name in enumerate(names)})


def test_a_meter_continues_from_a_state_saved_as_json():
    meter = Meter()
    common = {"exchange": "values", "flag_bit": True, "lead": True}
    meter.frame("up", DENSE, 80, paper_bits=320.0, local=False, **common)
    meter.frame("down", SKIP, 32, paper_bits=0.0, local=True, **common)
    other = Meter()
    other.restore(json.loads(json.dumps(meter.saved())))
    assert other.counts == meter.counts
    meter.collective("setup", 7, 56, 56.0)
    assert other.counts["setup"] == Count()
    other.collective("setup", 7, 56, 56.0)
    assert other.counts == meter.counts


@settings(deadline=None, max_examples=300)
@given(packets)
def test_payload_bits_are_the_paper_bits_and_the_named_overheads_of_each_message(packet):
    assert packet.payload_bits - packet.paper_bits == sum(packet.named_overheads.values())
    assert all(name for name in packet.named_overheads)
    count = counted(Frame(header=HEADER, packet=packet))
    assert (count.payload_bits, count.paper_bits) == (packet.payload_bits, packet.paper_bits)
    assert 8 * count.wire_bytes >= 8 * HEADER_BYTES + packet.payload_bits


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_compressors_default_packet_has_the_papers_bits_but_for_named_overheads(name):
    compressor = COMPRESSORS[name]()
    vector = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    packet = compressor(vector, spec=ModelSpec.of_sizes(900, 100), key=5)
    left_out = {"positions", "level means", "ends of ranges", "mask drawn, not expected"}  # not counted in the papers
    assert set(packet.named_overheads) <= left_out
    assert packet.payload_bits - sum(packet.named_overheads.values()) == packet.paper_bits
    assert packet.paper_bits == compressor.paper_bits(ModelSpec.of_sizes(900, 100))


def test_other_value_types_than_the_papers_float32_are_an_overhead_by_name():
    ones = torch.ones(10)
    assert Dense(values=ones.double()).named_overheads == {"value type": 320.0}
    assert Dense(values=ones.bfloat16()).named_overheads == {"value type": -160.0}
    scaled = ScaledSigns(
        packed=reference_hashing.pack_bits(ones < 0), scales=ones[:2].double(), lengths=(5, 5), offset=0
    )
    assert scaled.named_overheads == {"value type": 64.0}
    assert scaled.paper_bits == 10 + 2 * 32


def test_a_sampled_masks_size_is_an_overhead_over_the_expected_one():
    packet = signs_of(torch.zeros(1000, dtype=torch.bool), threshold=1 << 30)
    n_selected = int(packet.mask.sum())
    assert packet.paper_bits == 250.0
    assert packet.payload_bits == n_selected != 250
    assert packet.named_overheads == {"mask drawn, not expected": n_selected - 250.0}


@settings(deadline=None)
@given(st.one_of(dense_packets(), sign_packets()), st.data())
def test_parts_cost_together_what_the_full_packet_costs(packet, data):
    stop = packet.offset + packet.count
    boundary = data.draw(st.integers(packet.offset, stop))
    parts = [packet.part(packet.offset, boundary), packet.part(boundary, stop)]
    assert sum(part.payload_bits for part in parts) == packet.payload_bits
    assert sum(part.paper_bits for part in parts) == pytest.approx(packet.paper_bits, rel=1e-12)
    for part in parts:
        assert part.payload_bits - part.paper_bits == sum(part.named_overheads.values())
