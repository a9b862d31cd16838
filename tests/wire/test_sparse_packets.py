"""Packets with positions: votes, sparse values, changed votes. Their bytes, their bits, and what is refused."""

import dataclasses
import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import WireError
from laconic.wire import (
    HEADER_BYTES,
    POSITION_CODES,
    Dense,
    Frame,
    Positions,
    Signs,
    Sparse,
    VoteChange,
    decode,
    encode,
    encode_positions,
    max_encoded_bytes,
    paper_position_bits,
)
from laconic.wire.coding.positions import block_bits
from support.frame_bytes import (
    HEADER,
    assert_same_packet,
    bytes_of,
    patched,
    promised_bits,
    with_payload,
    with_value_type,
)
from support.inputs import failing_at, over_inputs
from support.packets import BY_KIND
from support.packets.positions import position_packets
from support.packets.sparse import sparse_packets
from support.packets.vote_change import vote_changes
from support.position_sets import random_support

INDICES = torch.tensor([1, 2, 9])
NONE = torch.empty(0, dtype=torch.int64)


def test_positions_follow_their_fields():
    data = bytes_of(Positions(indices=INDICES, count=16, offset=258, code="rice"))
    assert data[HEADER_BYTES:] == bytes.fromhex("02010000 10000000 03000000 02 00 0000 0a00000000000000 b180")
    assert data[2] == 0
    assert promised_bits(data) == 10


def test_values_stand_between_the_fields_and_the_positions():
    values = Dense(values=torch.tensor([1.5, -2.0, 1.0], dtype=torch.bfloat16))
    data = bytes_of(Sparse(indices=INDICES, values=values, count=16, offset=1, code="list"))
    fields = "01000000 10000000 03000000 00 03 0000 0c00000000000000"
    assert data[HEADER_BYTES:] == bytes.fromhex(fields + "00000000 03000000 c03f 00c0 803f 1290")
    assert data[2] == 2 << 1  # the values' type
    assert promised_bits(data) == 12 + 3 * 16


def test_nothing_stands_between_them_where_there_is_no_value():
    packet = Sparse(indices=NONE, values=Dense(values=torch.empty(0, dtype=torch.float64)), count=5)
    data = bytes_of(packet)
    assert data[HEADER_BYTES:] == bytes.fromhex("00000000 05000000 00000000 01 03 0000 0000000000000000")
    delivered = decode(data, 5).packet
    assert_same_packet(packet, delivered)
    assert torch.equal(delivered.dense(), torch.zeros(5, dtype=torch.float64))
    for payload in (data[HEADER_BYTES:] + b"\0", data[HEADER_BYTES:] + bytes(8)):
        with pytest.raises(WireError):
            decode(with_payload(data, payload), 5)
    with pytest.raises(WireError, match="values of kind 9 for 0 positions"):
        decode(patched(data, HEADER_BYTES + 13, "B", 9), 5)


def test_what_came_stands_before_what_went():
    packet = VoteChange(added=INDICES, dropped=torch.tensor([0, 3, 4]), count=16, listed=5, code="list", offset=1)
    data = bytes_of(packet)
    fields = "01000000 10000000 03000000 00 00 0000 0c00000000000000 05000000 0900000000000000"
    assert data[HEADER_BYTES:] == bytes.fromhex(fields + "1290 0e00")
    assert promised_bits(data) == 21


def test_dense_values_are_read_in_place():
    packet = Sparse(indices=INDICES, values=Dense(values=torch.tensor([1.0, 2.0, 3.0])), count=16)
    data = encode(Frame(header=HEADER, packet=packet))
    delivered = decode(data, 16).packet
    assert delivered.values.values.data_ptr() == data.data_ptr() + HEADER_BYTES + 32


NESTABLE = {name: found for name, found in BY_KIND.items() if found.kind.is_nestable}


def test_every_kind_with_a_value_for_each_coordinate_can_be_nested():
    without = {"signs", "positions", "sparse", "vote change", "kept values"}
    assert not without & NESTABLE.keys()
    assert {"dense", "scaled signs", "fractional", "quantized", "levels", "short floats"} <= NESTABLE.keys()


@pytest.mark.parametrize("kind", NESTABLE)
@over_inputs("code", POSITION_CODES)
def test_values_of_any_such_kind_travel_with_their_positions(kind, code):
    for name, sample in NESTABLE[kind].samples.items():
        with failing_at(name=name):
            assert_nested(dataclasses.replace(sample, offset=0), code)


def assert_nested(values, code):
    packet = Sparse(indices=random_support(1000, values.count), values=values, count=1000, offset=7, code=code)
    delivered = decode(bytes_of(packet), 1007).packet
    assert_same_packet(packet, delivered)
    expected = torch.zeros(1000, dtype=values.dtype)
    expected[packet.indices] = values.dense()
    assert torch.equal(delivered.dense(), expected)
    stream_bits = encode_positions(packet.indices, 1000, code)[1]
    assert packet.payload_bits == stream_bits + values.payload_bits
    assert packet.paper_bits == values.paper_bits
    assert packet.named_overheads == {"positions": stream_bits, **values.named_overheads}
    assert packet.minimum_bits <= math.log2(math.comb(1000, values.count)) + values.payload_bits + 1e-6


@pytest.mark.parametrize("kind", NESTABLE)
def test_a_nested_payload_that_is_not_one_is_refused(kind):
    values = dataclasses.replace(next(iter(NESTABLE[kind].samples.values())), offset=0)
    data = bytes_of(Sparse(indices=torch.arange(values.count), values=values, count=40))
    for at, wrong in ((0, 1), (4, 0), (4, values.count + 1), (4, 2**32 - 1)):
        with failing_at(at=at, wrong=wrong), pytest.raises(WireError):
            decode(patched(data, HEADER_BYTES + 24 + at, "I", wrong), 40)


@settings(deadline=None)
@given(st.one_of(position_packets(), sparse_packets()), st.data())
def test_parts_have_all_positions_between_them_and_may_be_empty(packet, data):
    stop = packet.offset + packet.count
    boundary = data.draw(st.integers(packet.offset, stop))
    parts = [packet.part(packet.offset, boundary), packet.part(boundary, stop)]
    assert torch.equal(torch.cat([part.dense() for part in parts]), packet.dense())
    assert sum(part.indices.numel() for part in parts) == packet.indices.numel()
    for part in parts:
        assert part.payload_bits - part.paper_bits == sum(part.named_overheads.values())


@settings(deadline=None)
@given(st.one_of(position_packets(), sparse_packets(), vote_changes()), st.integers(-3, 3))
def test_adding_is_adding_the_dense_form_in_the_totals_own_type(packet, start):
    for dtype in (torch.float32, torch.float64, torch.int32, torch.int64):
        if packet.name == "sparse" and not dtype.is_floating_point:
            continue
        total = torch.full((packet.count,), start, dtype=dtype)
        expected = total + packet.dense().to(dtype)
        packet.add_to(total)
        assert torch.equal(total, expected)


def test_votes_are_counted_in_integers():
    counts = torch.zeros(6, dtype=torch.int32)
    for where in ([0, 3], [3, 5], [3], []):
        Positions(indices=torch.tensor(where, dtype=torch.int64), count=6).add_to(counts)
    assert counts.tolist() == [1, 0, 0, 3, 0, 1]


def test_positions_cost_the_paper_its_formula_and_us_the_stream():
    for code in POSITION_CODES:
        packet = Positions(indices=random_support(1037, 11), count=1037, code=code)
        assert packet.paper_bits == paper_position_bits(1037, 11) == 11 * 9
        assert packet.payload_bits == encode_positions(packet.indices, 1037, code)[1]
        assert packet.named_overheads == {"position code": packet.payload_bits - 99}
    even = Positions(indices=random_support(1280, 10), count=1280)
    assert even.payload_bits == even.paper_bits == 90
    assert even.named_overheads == {}


def test_a_changed_vote_costs_two_streams_and_the_paper_twice_its_formula():
    packet = VoteChange(added=random_support(1280, 10), dropped=random_support(160, 10, 1), count=1280, listed=160)
    assert packet.paper_bits == 2 * 10 * 9
    assert packet.payload_bits == block_bits(1280, 10) + block_bits(160, 10) == 90 + 60
    assert packet.named_overheads == {"position code": -30.0}
    assert packet.dense().nonzero().flatten().tolist() == packet.added.tolist()


@pytest.mark.parametrize("code", POSITION_CODES)
@over_inputs("support", ["all", "half", "clusters"])
def test_the_longest_payloads_are_within_the_bound(code, support):
    count = 2000
    where = {
        "all": torch.arange(count),
        "half": torch.arange(0, count, 2),
        "clusters": torch.cat([torch.arange(10), torch.arange(count - 10, count)]),
    }[support]
    values = Dense(values=torch.ones(where.numel(), dtype=torch.float64))
    for packet in (
        Positions(indices=where, count=count, code=code),
        Sparse(indices=where, values=values, count=count, code=code),
        VoteChange(added=where, dropped=where, count=count, listed=count, code=code),
    ):
        assert len(bytes_of(packet)) - HEADER_BYTES <= 16 * count + 64 <= max_encoded_bytes(count)


def test_one_coordinate_of_one_is_within_the_bound():
    one = torch.tensor([0])
    for code in POSITION_CODES:
        packet = Sparse(indices=one, values=Dense(values=torch.ones(1, dtype=torch.float64)), count=1, code=code)
        assert len(bytes_of(packet)) - HEADER_BYTES <= 16 + 64
        change = VoteChange(added=one, dropped=one, count=1, listed=1, code=code)
        assert len(bytes_of(change)) - HEADER_BYTES <= 16 + 64


def test_a_dense_packet_has_its_elements_where_they_are_few():
    indices, values = torch.tensor([3, 70]), torch.tensor([2.0, -0.0])
    made = Dense.of_elements(indices, values, torch.empty(100), 5)
    for packet in (made, Dense(values=made.values.clone(), offset=5)):
        assert [part.tolist() for part in packet.elements] == [[3, 70], [2.0, -0.0]]
    assert Dense(values=torch.ones(100)).elements is None
    assert Dense(values=made.values.bfloat16()).elements is None


def test_sums_that_cancel_are_left_out():
    indices = torch.tensor([0, 2, 5])
    some = Sparse.of_sums(indices, torch.tensor([1.0, 0.0, -2.0]), 9, offset=3)
    assert (some.indices.tolist(), some.values.dense().tolist(), some.offset) == ([0, 5], [1.0, -2.0], 3)
    assert Sparse.of_sums(indices, torch.ones(3), 9).indices.tolist() == [0, 2, 5]
    assert Sparse.of_sums(indices, torch.zeros(3), 9).indices.numel() == 0


def test_values_that_are_not_those_of_the_indices_are_the_callers_mistake():
    with pytest.raises(ValueError, match=r"3 indices need values of coordinates 0 \.\. 2, not 0 \.\. 1"):
        Sparse(indices=INDICES, values=Dense(values=torch.ones(2)), count=16)
    with pytest.raises(ValueError, match=r"not 4 \.\. 6"):
        Sparse(indices=INDICES, values=Dense(values=torch.ones(3), offset=4), count=16)
    signs = Signs(
        packed=torch.tensor([7], dtype=torch.uint8),
        n_selected=3,
        offset=0,
        count=3,
        key=1,
        threshold=1 << 32,
        dtype=torch.float32,
    )
    with pytest.raises(ValueError, match="values of 3 elements cannot be 'signs'; give dense, fractional, "):
        Sparse(indices=INDICES, values=signs, count=16)


def test_a_list_that_would_grow_is_the_callers_mistake():
    with pytest.raises(ValueError, match="3 added and 2 dropped"):
        VoteChange(added=INDICES, dropped=torch.tensor([0, 1]), count=16, listed=5)


def test_changed_votes_refuse_to_be_split():
    with pytest.raises(AssertionError, match="separable"):
        VoteChange(added=INDICES, dropped=INDICES, count=16, listed=16).part(0, 1)


def test_values_that_are_not_finite_are_refused():
    packet = Sparse(indices=INDICES, values=Dense(values=torch.tensor([1.0, torch.inf, 2.0])), count=16)
    assert not packet.finite
    with pytest.raises(WireError, match="inf or NaN among the values"):
        decode(bytes_of(packet), 16)


POSITIONS = bytes_of(Positions(indices=INDICES, count=16))
SPARSE = bytes_of(Sparse(indices=INDICES, values=Dense(values=torch.ones(3)), count=16))
CHANGE = bytes_of(VoteChange(added=INDICES, dropped=torch.tensor([0, 3, 4]), count=16, listed=5))


@over_inputs(
    ("data", "at", "kind", "value", "reason"),
    [
        (POSITIONS, 8, "I", 17, "17 positions among 16 coordinates"),
        (POSITIONS, 8, "I", 2, "2 positions among 16 in 16 bits"),
        (POSITIONS, 12, "B", 4, "position code 4"),
        (POSITIONS, 13, "B", 3, "positions have no values, of kind 3"),
        (POSITIONS, 14, "H", 1, "reserved bytes 1"),
        (POSITIONS, 16, "Q", 17, "a payload of 26 bytes, its fields need 27"),
        (POSITIONS, 16, "Q", 15, "3 positions among 16 in 15 bits of blocks"),
        (POSITIONS, 16, "Q", 2**63, "its fields need"),
        (SPARSE, 13, "B", 4, "values of kind 4 for 3 positions"),
        (SPARSE, 13, "B", 0, "values of kind 0"),
        (SPARSE, 13, "B", 7, "values of kind 7"),
        (SPARSE, 16, "Q", 2**63, "sparse: a payload of 46 bytes with"),
        (SPARSE, 24, "I", 1, "not within a vector of 3"),
        (SPARSE, 28, "I", 2, "dense: a payload of 20 bytes"),
        (CHANGE, 24, "I", 2, "3 of a list of 2 among 16 coordinates"),
        (CHANGE, 24, "I", 17, "3 of a list of 17 among 16 coordinates"),
        (CHANGE, 28, "Q", 2**63, "its fields need"),
        (CHANGE, 13, "B", 3, "vote changes have no values"),
    ],
)
def test_lying_fields_are_refused_by_name(data, at, kind, value, reason):
    with pytest.raises(WireError, match=reason):
        decode(patched(data, HEADER_BYTES + at, kind, value), 16)


def test_fewer_values_than_positions_are_refused():
    values = struct.pack("<II", 0, 2) + bytes(8)
    payload = SPARSE[HEADER_BYTES : HEADER_BYTES + 24] + values + SPARSE[-2:]
    with pytest.raises(WireError, match="2 values for 3 positions"):
        decode(with_payload(SPARSE, payload), 16)


@over_inputs("data", [POSITIONS, CHANGE])
def test_what_has_no_values_has_no_other_value_type(data):
    for value_type in (1, 2):
        with pytest.raises(WireError, match=r"of type torch\.(float64|bfloat16)"):
            decode(with_value_type(data, value_type), 16)
