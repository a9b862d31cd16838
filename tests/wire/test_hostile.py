"""A reader trusts nobody: whatever is wrong with a buffer is a WireError, and costs no memory."""

import contextlib
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import WireError
from laconic.kernels.reference import hashing as reference_hashing
from laconic.wire import (
    HEADER_BYTES,
    Dense,
    Frame,
    ScaledSigns,
    Signs,
    decode,
    encode,
    max_encoded_bytes,
    read_payload_info,
)
from laconic.wire.codec import KINDS
from support.inputs import failing_at, over_inputs
from support.sample_packets import bytes_of, flipped, packets, patched, resealed, samples, samples_by_kind, signs_of

MAX_COUNT = 50
SAMPLES = samples()
BY_KIND = samples_by_kind()
PACKETS = [name for name in SAMPLES if name not in ("skip", "aborted")]
WRONG_NUMBERS = (0, 1, 2, 3, 7, 8, 9, 50, 51, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
# how many u32 a payload starts with; what takes eight bytes is two of them
FIELDS = {"dense": 2, "signs": 5, "scaled signs": 4, "positions": 6, "sparse": 6, "vote change": 9, "fractional": 3} | {
    "quantized": 5, "levels": 5, "short floats": 3, "kept values": 5,
}  # fmt: skip


every_kind = pytest.mark.parametrize("kind", BY_KIND)
every_packet_kind = pytest.mark.parametrize("kind", FIELDS)


def believed(data: bytes, max_count: int = MAX_COUNT) -> Frame | None:
    """The frame, or None for a WireError. What is believed must hold together: one packet has one encoding."""
    try:
        frame = decode(data, max_count)
    except WireError:
        return None
    if frame.packet is not None:
        dense = frame.packet.dense()
        assert dense.shape == (frame.packet.count,)
        assert frame.packet.offset + frame.packet.count <= max_count
        assert bool(torch.isfinite(dense).all())
    assert bytes(encode(frame).numpy()) == data
    return frame


def with_payload(data: bytes, payload: bytes) -> bytes:
    """The frame with another payload, whose length its header tells truly."""
    return resealed(data[:16] + struct.pack("<Q", len(payload)) + data[24:HEADER_BYTES] + payload)


@contextlib.contextmanager
def little_memory(n_bytes: int = 64 << 20):
    """Refuse this process more than `n_bytes` of new memory, so that a large allocation fails instead of passing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_the_samples_are_frames():
    assert all(believed(data) is not None for data in SAMPLES.values())
    assert {type(decode(data, MAX_COUNT).packet) for data in SAMPLES.values()} == {type(None), *KINDS.values()}
    assert set(BY_KIND) == {"notice", *FIELDS}


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
def test_a_flipped_bit_under_a_matching_checksum_gives_an_error_or_a_packet(kind):
    for name, data in BY_KIND[kind].items():
        with failing_at(name=name):
            outcomes = [believed(resealed(flipped(data, bit))) for bit in range(8 * len(data))]
            in_version, in_reserved = outcomes[:8], outcomes[56:64]
            in_lengths = outcomes[128:256]
            assert not any(in_version + in_reserved + in_lengths)
            assert all(outcomes[32:48] + outcomes[64:128])  # rank, round and checksum hold any number


@every_packet_kind
@over_inputs("wrong", WRONG_NUMBERS)
def test_a_lying_field_gives_an_error_or_a_packet(kind, wrong):
    for name, data in BY_KIND[kind].items():
        for field in range(FIELDS[kind]):
            lying = patched(data, HEADER_BYTES + 4 * field, "I", wrong)
            for max_count in (1, MAX_COUNT, 1 << 20):
                with failing_at(name=name, field=field, max_count=max_count):
                    believed(lying, max_count)


@every_packet_kind
@over_inputs("wrong", [*WRONG_NUMBERS, 2**60, 2**63, 2**64 - 1])
def test_a_lying_length_or_payload_is_an_error(kind, wrong):
    for name, data in BY_KIND[kind].items():
        for at, true_value in ((16, len(data) - HEADER_BYTES), (24, decode(data, MAX_COUNT).packet.payload_bits)):
            if wrong != true_value:
                with failing_at(name=name, at=at), pytest.raises(WireError):
                    decode(patched(data, at, "Q", wrong), MAX_COUNT)


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
        (0, 0, "version 0 of the format; this is a reader of version 1"),
        (0, 2, "version 2"),
        (1, 0, "unknown packet kind 0; known: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13"),
        (1, max(KINDS) + 1, f"unknown packet kind {max(KINDS) + 1}"),
        (1, 255, "unknown packet kind 255"),
        (2, 2, "role 2"),
        (6, 3, "value type 3"),
        (7, 1, "reserved byte 1"),
    ],
)
@over_inputs("name", ["skip", "dense float32", "kept signs", "blocks of 4"])
def test_what_the_version_does_not_know_is_refused_by_name(name, at, value, reason):
    with pytest.raises(WireError, match=reason):
        decode(patched(SAMPLES[name], at, "B", value), MAX_COUNT)


@over_inputs("name", ["skip", "aborted"])
@over_inputs("change", [(6, "B", 1), (6, "B", 2), (24, "Q", 0), (24, "Q", 2)])
def test_a_control_frame_carries_one_bit_and_no_type(name, change):
    with pytest.raises(WireError, match="a control frame has no payload, one payload bit and value type 0"):
        decode(patched(SAMPLES[name], *change), MAX_COUNT)
    with pytest.raises(WireError, match="a control frame has no payload"):
        decode(with_payload(SAMPLES[name], b"\0"), MAX_COUNT)


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
    assert read_payload_info(header, max_count=28).encoded_bytes == 28
    with pytest.raises(WireError, match="promises 28 payload bytes; at most 27 can belong to this vector"):
        read_payload_info(header, max_count=27)
    for wrong in (2**37, 2**60, 2**64 - 1):
        with pytest.raises(WireError, match=f"promises {wrong} payload bytes"):
            read_payload_info(header[:16] + struct.pack("<Q", wrong) + header[24:], max_encoded_bytes(2**32))
    for n_left in (0, 31):
        with pytest.raises(WireError, match=f"a header of {n_left} bytes"):
            read_payload_info(header[:n_left], max_count=28)
    with pytest.raises(WireError, match="version 9"):
        read_payload_info(b"\x09" + header[1:], max_count=28)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the size of this process")
def test_a_promise_of_much_is_refused_before_a_buffer_is_made():
    torch.ones(1 << 16).sum()  # whatever torch sets up once is set up
    with little_memory():
        with pytest.raises(RuntimeError, match="alloc"):
            torch.ones(128 << 20, dtype=torch.uint8)  # the limit works
        for name in PACKETS:
            data = patched(SAMPLES[name], HEADER_BYTES, "I", 0)
            for wrong in (2**32 - 1, 2**31, 2**28):
                assert believed(patched(data, HEADER_BYTES + 4, "I", wrong), MAX_COUNT) is None
                if name not in ("kept signs", "no sign kept", "kept values", "no value kept"):
                    assert believed(patched(data, HEADER_BYTES + 4, "I", wrong), 1 << 32) is None
            for wrong in (2**31, 2**60):
                assert believed(patched(data, 16, "Q", wrong), 1 << 32) is None
        for size, blocks in ((1, 2**32 - 1), (0, 2**32 - 1), (2**32 - 1, 1), (0, 2**20), (1, 2**20)):
            data = SAMPLES["blocks of 4"]
            for at, value in ((4, 2**32 - 1), (0, 0), (8, size), (12, blocks)):
                data = patched(data, HEADER_BYTES + at, "I", value)
            assert believed(data, 1 << 32) is None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the size of this process")
def test_a_mask_costs_no_more_than_the_readers_own_vector():
    data = patched(SAMPLES["no sign kept"], HEADER_BYTES + 4, "I", 1 << 20)
    with little_memory():
        believed(data, max_count=1 << 20)


def random_frame(rng: np.random.Generator) -> bytes:
    """A frame that gets as far as a payload's reader: header and checksum are right, the payload is noise or a damaged
    payload.
    """
    n_noise = int(rng.integers(0, 169))
    if rng.random() < 0.3:
        kind, value_type = int(rng.integers(1, max(KINDS) + 2)), int(rng.integers(0, 3))
        start = struct.pack("<BBBBHBBIIQQ", 1, kind, 0, 0, 0, value_type, 0, 0, 0, 0, int(rng.integers(0, 99)))
        return with_payload(start, rng.bytes(n_noise))
    data = bytearray(SAMPLES[PACKETS[int(rng.integers(len(PACKETS)))]])
    for at in rng.integers(HEADER_BYTES, len(data), size=int(rng.integers(0, 4))):
        data[at] = int(rng.integers(256)) if rng.random() < 0.5 else data[at] ^ (1 << int(rng.integers(8)))
    if rng.random() < 0.3:
        data[6] = int(rng.integers(3))
    if rng.random() < 0.2:
        return with_payload(bytes(data), bytes(data[HEADER_BYTES:])[:n_noise] + rng.bytes(n_noise % 5))
    return resealed(data)


def test_random_buffers_are_refused():
    rng = np.random.default_rng(2024)
    lengths = rng.integers(0, 201, size=85_000)
    assert not any(believed(rng.bytes(int(length))) for length in lengths)


def test_random_payloads_under_a_right_header_are_refused_or_hold_together():
    rng = np.random.default_rng(2025)
    kinds = [type(frame.packet) for _ in range(60_000) if (frame := believed(random_frame(rng))) is not None]
    assert all(kinds.count(kind) > 200 for kind in KINDS.values())  # so the checks behind the last one were reached
    assert len(kinds) < 30_000
