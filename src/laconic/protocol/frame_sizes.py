"""The sizes of frames that are not encoded, and what decoding them would give."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from laconic.contract import Algorithm
from laconic.protocol.layout import Shard
from laconic.telemetry.meter import FrameSizes
from laconic.wire import HEADER_BYTES, Dense, Frame, Header, Packet, Size, Sizes, decode, encode

_ANY_HEADER = Header(role="worker", rank=0, round=0, exchange=0)  # what a packet decodes to does not depend on it


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
    if (read := sent.as_read()) is sent:
        return frame
    return Frame(header=frame.header, packet=packet_as_received(sent, d, read))


def packet_as_received(sent: Packet, d: int, read: Packet | None = None) -> Packet:
    """Return the same for what a frame carries; `read` is its `as_read()`, if the caller has it."""
    packet = sent.as_read() if read is None else read
    if packet is None:
        decoded = decode(encode(Frame(header=_ANY_HEADER, packet=sent)), d).packet
        assert decoded is not None, "the frame of a packet"
        return decoded
    if packet is not sent and "absolute_maximum" in sent.__dict__:  # the cached property: it is known here
        packet.__dict__["absolute_maximum"] = sent.__dict__["absolute_maximum"]
    return packet


@lru_cache(maxsize=16)
def control_sizes(n: int, *, skips: bool) -> FrameSizes:
    """Return the sizes of `n` control frames that go out in place of a packet: SKIP, or ABORT."""
    return FrameSizes([HEADER_BYTES] * n, n * HEADER_BYTES, n, [0.0] * n, int(skips))


def frame_sizes(
    packet: Packet, bounds: Sequence[int], algorithm: Algorithm, direction: Literal["up", "down"]
) -> FrameSizes:
    """Return the sizes of the frames that a packet would be split into, from each offset in `bounds` to the next."""
    n, own = len(bounds) - 1, type(algorithm).paper_bits_of is not Algorithm.paper_bits_of
    if n == 1:
        n_bytes, bits = HEADER_BYTES + packet.encoded_bytes, packet.payload_bits + algorithm.skips
        paper_bits = algorithm.paper_bits_of(direction, packet) if own else packet.paper_bits
        return FrameSizes([n_bytes], n_bytes, bits, [paper_bits], 0)
    if not own:
        return _framed(packet.sizes(bounds), algorithm)
    parts = [packet.part(start, stop) for start, stop in pairwise(bounds)]
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
