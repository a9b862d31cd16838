"""The number of bytes of a frame that is not encoded, and what decoding it would give."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from laconic.contract import Algorithm
from laconic.protocol.layout import Shard
from laconic.telemetry.meter import FrameSizes
from laconic.wire import HEAD_BYTES, Frame, Packet, Size, Sizes, decode, encode


def as_received(frame: Frame, d: int) -> Frame:
    """What decoding the frame's bytes gives, by way of them only where it must be. Raises WireError."""
    if frame.packet is None:
        return frame
    packet = frame.packet.as_read()
    if packet is None:
        return decode(encode(frame), d)
    return Frame(head=frame.head, packet=packet, void=frame.void)


def frame_sizes(frame: Frame, cuts: Sequence[int], algorithm: Algorithm, way: Literal["up", "down"]) -> FrameSizes:
    """What the frames count for that this one would be cut into, from each coordinate in `cuts` to the next one."""
    n, packet = len(cuts) - 1, frame.packet
    if packet is None:
        skips = int(not frame.void)
        return FrameSizes([HEAD_BYTES] * n, n * HEAD_BYTES, n, [0.0] * n, skips)
    if n > 1 and type(algorithm).charge is Algorithm.charge:
        return _framed(packet.sizes(cuts), algorithm)
    parts = [packet] if n == 1 else [packet.part(first, stop) for first, stop in pairwise(cuts)]
    return _framed(Sizes.of([part.size._replace(paper_bits=algorithm.charge(way, part)) for part in parts]), algorithm)


def _framed(sizes: Sizes, algorithm: Algorithm) -> FrameSizes:
    n_bytes = [HEAD_BYTES + body_bytes for body_bytes in sizes.body_bytes]
    flags = len(n_bytes) if algorithm.skips else 0
    return FrameSizes(n_bytes, sum(n_bytes), sum(sizes.payload_bits) + flags, sizes.paper_bits, 0)


def sizes_where_spoiled(packet: Packet, shards: Sequence[Shard], algorithm: Algorithm) -> FrameSizes:
    """The same for an answer with inf or NaN in it: a notice stands for each part that has one."""
    flag = int(algorithm.skips)
    counted = []
    for shard in shards:
        part = packet if len(shards) == 1 else packet.part(shard.first, shard.stop)
        if part.finite:
            size = part.size
            counted.append(Size(size.body_bytes, size.payload_bits + flag, algorithm.charge("down", part)))
        else:
            counted.append(Size(0, 1, 0.0))
    n_bytes = [HEAD_BYTES + size.body_bytes for size in counted]
    payload_bits, paper_bits = (sum(s.payload_bits for s in counted), [s.paper_bits for s in counted])
    return FrameSizes(n_bytes, sum(n_bytes), payload_bits, paper_bits, 0)
