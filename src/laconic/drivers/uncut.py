"""What the simulator need not do: cut a packet among servers, or work out one answer once for every worker.

Where no fault can befall a frame, its bytes matter by their number alone, and that is known without them. A method may
be served by several servers only if it is separable: one that serves the whole vector then gives the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor

from laconic.contract import Algorithm, Reply
from laconic.drivers.layout import Shard
from laconic.memory import Memory
from laconic.wire import HEAD_BYTES, Dense, Frame, FrameSizes, Packet, Size, Sizes, decode, encode


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


class Shared:
    """One answer's dense form, worked out for the first worker that asks and lent to all.

    Whoever changes it in place keeps it, and the next one gets another.
    """

    def __init__(self, empty: Callable[[], Tensor]) -> None:
        """empty: makes a vector with anything in it, as long as the answer."""
        self.empty = empty
        self._whole: Tensor | None = None
        self._version = 0

    def dense(self, make: Callable[[], Tensor]) -> Tensor:
        """The vector, by `make` where there is none or somebody has changed it."""
        if self._whole is None or self._whole._version != self._version:
            self._whole = make()
            self._version = self._whole._version
        return self._whole


@dataclass(frozen=True, kw_only=True)
class SharedReply(Reply):
    """A reply whose dense form other workers of this process have as well."""

    shared: Shared

    def dense(self) -> Tensor:
        return self.shared.dense(self._made)

    def _made(self) -> Tensor:
        if len(self.parts) == 1 and isinstance(self.parts[0], Dense):  # its own vector stays as it came
            return self.empty().copy_(self.parts[0].dense())
        return super().dense()


class SharedVectors:
    """The memory that dense answers are taken from which workers share."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.spare = memory.spare

    def end_round(self, results: Sequence[Tensor], memories: Sequence[Memory]) -> None:
        """Make free what was taken, except for what is among the results or what somebody keeps."""
        for vector in self._memory.lent:
            if any(memory.holds(vector) for memory in memories):
                self._memory.let_go(vector)
        for result in results[1:]:
            self._memory.let_go(result)
        self._memory.commit(results[0] if results else None)

    def take_back(self, is_used: Callable[[Tensor], bool] = lambda _: False) -> None:
        """See Memory."""
        self._memory.take_back(is_used)
