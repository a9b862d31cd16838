"""What the reader says of many damaged frames, so that two interpreters can be compared."""

import hashlib

import torch

from laconic.errors import WireError
from laconic.wire import HEADER_BYTES, Frame, decode, encode
from support.frame_bytes import flipped, patched, resealed
from support.packets import BY_KIND
from support.sample_packets import samples_by_kind

MAX_COUNT = 50
WRONG_NUMBERS = (0, 1, 2, 3, 7, 8, 9, 50, 51, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)


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


def digest() -> str:
    """A hash over the outcome of damaged frames: of each kind one in every bit, others in each third of the payload."""
    outcomes = hashlib.sha256()
    for kind, frames in samples_by_kind().items():
        n_fields = BY_KIND[kind].n_fields if kind in BY_KIND else 0
        for number, data in enumerate(frames.values()):
            bits = range(number and 8 * HEADER_BYTES + number % 3, 8 * len(data), 3 if number else 1)
            damaged = [resealed(flipped(data, bit)) for bit in bits]
            damaged += [
                patched(data, HEADER_BYTES + 4 * field, "I", wrong)
                for field in range(n_fields)
                for wrong in WRONG_NUMBERS
            ]
            for each in damaged:
                outcomes.update(_outcome(each).encode())
    return outcomes.hexdigest()


def _outcome(data: bytes) -> str:
    try:
        packet = decode(data, MAX_COUNT).packet
    except WireError as error:
        return str(error)
    return "" if packet is None else str(packet.dense().tolist())
