"""The sizes of frames that are not encoded, and what decoding them would give."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from laconic.contract import Algorithm
from laconic.protocol.layout import Shard
from laconic.telemetry.meter import FrameSizes
from laconic.wire import HEADER_BYTES, Dense, Frame, Packet, Size, Sizes, decode, encode


def as_received(frame: Frame, d: int, *, in_place: bool = False) -> Frame:
    """Return the frame that a receiver would decode; it is encoded only if the packet needs that.

    Args:
        frame: the frame.
        d: length of the receiver's vector.
        in_place: whether sender and receiver are sessions of one rank, so that dense values stay where they are.

    Raises:
        WireError: a receiver would refuse it.
    """
    sent = frame.packet
    if sent is None or (in_place and type(sent) is Dense and sent.values.is_cpu):
        return frame
    packet = sent.as_read()
    if packet is None:
        return decode(encode(frame), d)
    if packet is sent:
        return frame
    if "absolute_maximum" in sent.__dict__:  # the cached property: it is known here
        packet.__dict__["absolute_maximum"] = sent.__dict__["absolute_maximum"]
    return Frame(header=frame.header, packet=packet)


def frame_sizes(
    frame: Frame, bounds: Sequence[int], algorithm: Algorithm, direction: Literal["up", "down"]
) -> FrameSizes:
    """Return the sizes of the frames that this one would be split into, from each offset in `bounds` to the next."""
    n, packet = len(bounds) - 1, frame.packet
    if packet is None:
        skips = int(frame.skipped)
        return FrameSizes([HEADER_BYTES] * n, n * HEADER_BYTES, n, [0.0] * n, skips)
    if n > 1 and type(algorithm).paper_bits_of is Algorithm.paper_bits_of:
        return _framed(packet.sizes(bounds), algorithm)
    parts = [packet] if n == 1 else [packet.part(start, stop) for start, stop in pairwise(bounds)]
    return _framed(
        Sizes.of([part.size._replace(paper_bits=algorithm.paper_bits_of(direction, part)) for part in parts]), algorithm
    )


def _framed(sizes: Sizes, algorithm: Algorithm) -> FrameSizes:
    n_bytes = [HEADER_BYTES + encoded_bytes for encoded_bytes in sizes.encoded_bytes]
    flags = len(n_bytes) if algorithm.skips else 0
    return FrameSizes(n_bytes, sum(n_bytes), sum(sizes.payload_bits) + flags, sizes.paper_bits, 0)


def sizes_where_aborted(
    packet: Packet, shards: Sequence[Shard], algorithm: Algorithm, refuses: Callable[[Packet, Shard], bool]
) -> FrameSizes:
    """Return the same for an answer that is refused: each shard that `refuses` sends an ABORT control frame instead."""
    flag = int(algorithm.skips)
    counted = []
    for shard in shards:
        part = packet if len(shards) == 1 else packet.part(shard.offset, shard.stop)
        if not refuses(part, shard):
            size = part.size
            counted.append(Size(size.encoded_bytes, size.payload_bits + flag, algorithm.paper_bits_of("down", part)))
        else:
            counted.append(Size(0, 1, 0.0))
    n_bytes = [HEADER_BYTES + size.encoded_bytes for size in counted]
    payload_bits, paper_bits = (sum(s.payload_bits for s in counted), [s.paper_bits for s in counted])
    return FrameSizes(n_bytes, sum(n_bytes), payload_bits, paper_bits, 0)
