"""A reader trusts nobody: whatever is wrong with a buffer is a WireError, and costs no memory."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import WireError
from laconic.kernels.reference import hashing as reference_hashing
from laconic.wire import (
    HEADER_BYTES,
    Control,
    Dense,
    ScaledSigns,
    Signs,
    decode,
    max_encoded_bytes,
    read_payload_info,
)
from laconic.wire.packets import KINDS
from support import packets as packets_of_kinds
from support.frame_bytes import (
    bytes_of,
    flipped,
    patched,
    promised_bits,
    resealed,
    with_payload,
    with_promise,
    with_value_type,
)
from support.hostile_outcomes import MAX_COUNT, WRONG_NUMBERS, believed
from support.inputs import failing_at, over_inputs
from support.packets.signs import signs_of
from support.sample_packets import USED, packets, samples, samples_by_kind

SAMPLES = samples()
BY_KIND = samples_by_kind()
PACKET_KINDS = packets_of_kinds.BY_KIND
PACKETS = [name for kind, frames in BY_KIND.items() if kind != "control" for name in frames]

every_kind = pytest.mark.parametrize("kind", BY_KIND)
every_packet_kind = pytest.mark.parametrize("kind", PACKET_KINDS)


def test_the_samples_are_frames():
    assert all(believed(data) is not None for data in SAMPLES.values())
    assert {type(decode(data, MAX_COUNT).packet) for data in SAMPLES.values()} == {type(None), *KINDS.values()}
    assert {decode(data, MAX_COUNT).control for data in BY_KIND["control"].values()} == set(Control)


def test_every_kind_of_packet_has_samples():
    assert {kind: found.kind for kind, found in PACKET_KINDS.items()} == {cls.name: cls for cls in KINDS.values()}
    assert all(kind < 128 for kind in KINDS), "from 128 on kinds are control frames"


@every_kind
def test_no_prefix_of_a_frame_is_a_frame(kind):
    for name, data in BY_KIND[kind].items():
        for n_left in range(len(data)):
            with failing_at(name=name, n_left=n_left):
                with pytest.raises(WireError):
                    decode(data[:n_left], MAX_COUNT)
                with pytest.raises(WireError):
                    decode(torch.frombuffer(bytearray(data + b"\0"), dtype=torch.uint8)[:n_left], MAX_COUNT)


@settings(deadline=None, max_examples=50)
@given(packets, st.data())
def test_no_prefix_of_any_frame_is_a_frame(packet, data):
    full = bytes_of(packet)
    with pytest.raises(WireError):
        decode(full[: data.draw(st.integers(0, len(full) - 1))], 1 << 32)


@every_packet_kind
def test_no_prefix_of_a_payload_is_a_payload(kind):
    for name, data in BY_KIND[kind].items():
        for n_left in range(len(data) - HEADER_BYTES):
            with failing_at(name=name, n_left=n_left), pytest.raises(WireError):
                decode(with_payload(data, data[HEADER_BYTES : HEADER_BYTES + n_left]), MAX_COUNT)


@every_kind
@over_inputs("tail", [b"\0", b"\xff", bytes(8), bytes(100)])
def test_nothing_may_follow_a_frame(kind, tail):
    for name, data in BY_KIND[kind].items():
        for longer in (data + tail, resealed(data + tail), with_payload(data, data[HEADER_BYTES:] + tail)):
            with failing_at(name=name), pytest.raises(WireError):
                decode(longer, MAX_COUNT)


@every_kind
def test_no_flipped_bit_goes_unseen(kind):
    for name, data in BY_KIND[kind].items():
        for bit in range(8 * len(data)):
            with failing_at(name=name, bit=bit), pytest.raises(WireError):
                decode(flipped(data, bit), MAX_COUNT)


@every_kind
@pytest.mark.slow
def test_a_flipped_bit_under_a_matching_checksum_gives_an_error_or_a_packet(kind):
    for name, data in BY_KIND[kind].items():
        with failing_at(name=name):
            outcomes = [believed(resealed(flipped(data, bit))) for bit in range(8 * len(data))]
            in_version, in_split_and_reserved = outcomes[:8], outcomes[19:20] + outcomes[22:32]
            in_lengths = outcomes[160:208] if name == "USED" else outcomes[160:256]  # which has other numbers of bits
            assert not any(in_version + in_split_and_reserved + in_lengths)
            # Role and the two flags of the caller; rank, exchange, round and checksum hold any number.
            assert all([outcomes[16], *outcomes[20:22], *outcomes[32:128]])
            believed_weights = [outcome is not None for outcome in outcomes[128:160]]
            assert believed_weights == [False] + 31 * [True]  # 0, and others


@every_packet_kind
@over_inputs("wrong", WRONG_NUMBERS)
def test_a_lying_field_gives_an_error_or_a_packet(kind, wrong):
    for name, data in BY_KIND[kind].items():
        for field in range(PACKET_KINDS[kind].n_fields):
            lying = patched(data, HEADER_BYTES + 4 * field, "I", wrong)
            for max_count in (1, MAX_COUNT, 1 << 20):
                with failing_at(name=name, field=field, max_count=max_count):
                    believed(lying, max_count)


@every_packet_kind
@over_inputs("wrong", [*WRONG_NUMBERS, 2**40, 2**47, 2**48 - 1])
def test_a_lying_length_or_payload_is_an_error(kind, wrong):
    for name, data in BY_KIND[kind].items():
        true_values = {"payload_bytes": len(data) - HEADER_BYTES, "payload_bits": promised_bits(data)}
        for field, true_value in true_values.items():
            if wrong != true_value:
                with failing_at(name=name, field=field), pytest.raises(WireError):
                    decode(with_promise(data, **{field: wrong}), MAX_COUNT)


@over_inputs(
    ("size", "blocks"),
    [(4, 2), (4, 4), (0, 3), (3, 3), (6, 3), (0, 0), (11, 0), (12, 1), (2**32 - 1, 1), (0, 2**32 - 1)],
)
def test_lying_block_counts_are_refused(size, blocks):
    data = patched(SAMPLES["blocks of 4"], HEADER_BYTES + 8, "I", size)
    with pytest.raises(WireError, match="scaled signs"):
        decode(patched(data, HEADER_BYTES + 12, "I", blocks), MAX_COUNT)


@over_inputs(
    ("table", "reason"),
    [
        ((2, 8, 2), "add up"),
        ((0, 10, 1), "add up"),
        ((2**32 - 1, 11, 1), "add up"),
        ((2, 9, 0), "add up"),
        ((4, 4, 3), "where a block size of 4 says the same"),
    ],
)
def test_a_table_of_lengths_must_add_up_and_be_needed(table, reason):
    data = bytearray(SAMPLES["uneven blocks"])
    struct.pack_into("<3I", data, HEADER_BYTES + 16, *table)
    with pytest.raises(WireError, match=reason):
        decode(resealed(data), MAX_COUNT)


@over_inputs(
    ("at", "value", "reason"),
    [
        (0, 1, "version 1 of the format; this is a reader of version 2"),
        (0, 3, "version 3"),
        (1, 0, f"unknown packet kind 0; known: {', '.join(map(str, sorted(KINDS)))}"),
        (1, 2, "unknown packet kind 2"),
        (1, max(KINDS) + 1, f"unknown packet kind {max(KINDS) + 1}"),
        (1, max(control.value for control in Control) + 1, "unknown packet kind"),
        (1, 255, "unknown packet kind 255"),
        (2, 6, "value type 3"),
        (2, 8, "a split frame"),
        (2, 64, "flags 0x0040"),
        (3, 128, "flags 0x8000"),
    ],
)
@over_inputs("name", ["SKIP", "dense float32", "kept signs", "blocks of 4"])
def test_what_the_version_does_not_know_is_refused_by_name(name, at, value, reason):
    with pytest.raises(WireError, match=reason):
        decode(patched(SAMPLES[name], at, "B", value), MAX_COUNT)


@over_inputs("name", BY_KIND["control"])
def test_a_control_frame_has_no_value_type_and_no_bits_beyond_its_own(name):
    data = BY_KIND["control"][name]
    for number in (1, 2):
        with pytest.raises(WireError, match=f"{name}: a control frame has value type 0"):
            decode(with_value_type(data, number), MAX_COUNT)
    for n_bits in (0, promised_bits(data) - 1, promised_bits(data) + 7, 2**48 - 1):
        with pytest.raises(WireError, match=f"{name}|used"):
            decode(with_promise(data, payload_bits=n_bits), MAX_COUNT)
    with pytest.raises(WireError, match=f"{name}|used"):
        decode(with_payload(data, data[HEADER_BYTES:] + b"\0"), MAX_COUNT)


def test_a_bit_beyond_the_last_parameter_tensor_is_refused():
    data = SAMPLES["USED"]
    assert decode(data, MAX_COUNT).used == USED
    for bit in range(len(USED), 16):
        with pytest.raises(WireError, match="used: the padding after bit 10 is not zero"):
            decode(resealed(flipped(data, 8 * HEADER_BYTES + bit)), MAX_COUNT)


@over_inputs("name", ["SKIP", "USED", "dense float32", "kept signs"])
def test_a_weight_of_zero_is_refused(name):
    with pytest.raises(WireError, match="weight 0; a packet has at least one sample behind it"):
        decode(patched(SAMPLES[name], 16, "I", 0), MAX_COUNT)


@every_packet_kind
def test_coordinates_outside_the_vector_are_refused(kind):
    for name, data in BY_KIND[kind].items():
        with failing_at(name=name):
            packet = decode(data, MAX_COUNT).packet
            stop = packet.offset + packet.count
            assert believed(data, max_count=stop)
            reason = f"coordinates {packet.offset} .. {stop - 1} are not within a vector of "
            for max_count in (0, 1, stop - 1):
                with pytest.raises(WireError, match=f"{reason}{max_count}"):
                    decode(data, max_count)
            with pytest.raises(WireError, match="not within"):
                decode(patched(data, HEADER_BYTES, "I", 2**32 - 1), MAX_COUNT)


@over_inputs("name", ["all signs", "kept signs", "one block", "blocks of 4", "uneven blocks"])
def test_padding_that_is_not_zero_is_refused(name):
    data = SAMPLES[name]
    packet = decode(data, MAX_COUNT).packet
    n_padding = -(packet.n_selected if isinstance(packet, Signs) else packet.count) % 8
    assert n_padding > 0
    for bit in range(8 - n_padding, 8):
        with pytest.raises(WireError, match="padding"):
            decode(resealed(flipped(data, 8 * (len(data) - 1) + bit)), MAX_COUNT)


@over_inputs("dtype", [torch.float32, torch.float64, torch.bfloat16])
@over_inputs("value", [float("inf"), float("-inf"), float("nan")])
def test_values_and_scales_that_are_not_finite_are_refused(dtype, value):
    values = torch.tensor([1.0, value, 2.0], dtype=dtype)
    dense = Dense(values=values)
    scaled = ScaledSigns(
        packed=reference_hashing.pack_bits(torch.zeros(6, dtype=torch.bool)), scales=values, lengths=(2, 2, 2), offset=0
    )
    assert not dense.finite
    assert not scaled.finite
    with pytest.raises(WireError, match="inf or NaN among the values"):
        decode(bytes_of(dense), MAX_COUNT)
    with pytest.raises(WireError, match="a scale is negative, inf or NaN"):
        decode(bytes_of(scaled), MAX_COUNT)


def test_a_negative_scale_is_refused():
    negative = torch.zeros(2, dtype=torch.bool)
    data = bytes_of(
        ScaledSigns(
            packed=reference_hashing.pack_bits(negative), scales=torch.tensor([1.0, -1e-40]), lengths=(1, 1), offset=0
        )
    )
    with pytest.raises(WireError, match="a scale is negative"):
        decode(data, MAX_COUNT)


def test_an_empty_packet_is_refused():
    for packet in (Dense(values=torch.empty(0)), signs_of(torch.empty(0, dtype=torch.bool))):
        with pytest.raises(WireError, match="not within"):
            decode(bytes_of(packet), MAX_COUNT)


def test_a_payload_longer_than_any_honest_one_is_refused_from_its_header_alone():
    header = SAMPLES["dense float32"][:HEADER_BYTES]
    assert read_payload_info(header, max_bytes=28).encoded_bytes == 28
    with pytest.raises(WireError, match="promises 28 payload bytes; at most 27 can belong to this vector"):
        read_payload_info(header, max_bytes=27)
    for wrong in (2**37, 2**40, 2**48 - 1):
        with pytest.raises(WireError, match=f"promises {wrong} payload bytes"):
            read_payload_info(with_promise(header, payload_bytes=wrong), max_encoded_bytes(2**32))
    for n_left in (0, 31):
        with pytest.raises(WireError, match=f"a header of {n_left} bytes"):
            read_payload_info(header[:n_left], max_bytes=28)
    with pytest.raises(WireError, match="version 9"):
        read_payload_info(b"\x09" + header[1:], max_bytes=28)


def random_frame(rng: np.random.Generator) -> bytes:
    """A frame that gets as far as a payload's reader: header and checksum are right, the payload is noise or a damaged
    payload.
    """
    n_noise = int(rng.integers(0, 169))
    if rng.random() < 0.3:
        kind, value_type = int(rng.integers(1, max(KINDS) + 2)), int(rng.integers(0, 3))
        start = struct.pack("<BBHHHIII12x", 2, kind, value_type << 1, 0, 0, 0, 0, 1)
        return with_promise(with_payload(start, rng.bytes(n_noise)), payload_bits=int(rng.integers(0, 99)))
    data = bytearray(SAMPLES[PACKETS[int(rng.integers(len(PACKETS)))]])
    for at in rng.integers(HEADER_BYTES, len(data), size=int(rng.integers(0, 4))):
        data[at] = int(rng.integers(256)) if rng.random() < 0.5 else data[at] ^ (1 << int(rng.integers(8)))
    if rng.random() < 0.3:
        data = bytearray(with_value_type(data, int(rng.integers(3))))
    if rng.random() < 0.2:
        return with_payload(bytes(data), bytes(data[HEADER_BYTES:])[:n_noise] + rng.bytes(n_noise % 5))
    return resealed(data)


@pytest.mark.parametrize("n", [20_000, pytest.param(85_000, marks=pytest.mark.nightly)])
def test_random_buffers_are_refused(n):
    rng = np.random.default_rng(2024)
    lengths = rng.integers(0, 201, size=n)
    assert not any(believed(rng.bytes(int(length))) for length in lengths)


@pytest.mark.slow
@pytest.mark.parametrize("n", [12_000, pytest.param(60_000, marks=pytest.mark.nightly)])
def test_random_payloads_under_a_right_header_are_refused_or_hold_together(n):
    rng = np.random.default_rng(2025)
    kinds = [type(frame.packet) for _ in range(n) if (frame := believed(random_frame(rng))) is not None]
    assert all(
        kinds.count(kind) > n // 300 for kind in KINDS.values()
    )  # so the checks behind the last one were reached
    assert len(kinds) < n // 2
