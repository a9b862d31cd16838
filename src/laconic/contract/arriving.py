"""What a method sees of its neighbors' packets while they come."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from laconic.wire import ComingCodes, Dense, Measured, Packet, ready_until

Take = Callable[[int, Tensor, int], tuple[float, int, float, int | None] | None]
"""Takes a sender's rank, values (n,), and the number of values before them. Where it makes something of them at once,
it returns their largest magnitude and CRC-32, and those of what it has made, whose CRC-32 may be None."""


@final
class Arriving:
    """Hands the values of one exchange's long dense packets to a method while they come, if the driver shows them.

    They are not checked yet: the method may write to vectors of its scratch alone, and count on that where `saw` says
    of the packet that it was those values.
    """

    def __init__(self, take: Take, count: int, dtype: torch.dtype) -> None:
        """`take` gets the values of packets of `count` values of this type, in order for each sender."""
        self._take, self._count, self._dtype = take, count, dtype
        self._n_taken: dict[int, int] = {}  # by rank
        self._at: dict[int, int] = {}  # by rank: where its values are
        self.made = Measured()
        """What `take` says of what it has made, in the order of one sender's values."""

    def chunk(self, node: int, values: Tensor, start: int) -> tuple[float, int] | None:
        """Take values as a transport hands them over; in a graph nodes are ranks."""
        stop = start + values.numel()
        if values.dtype is not self._dtype or stop > self._count or self._n_taken.get(node, 0) != start:
            return None  # the frame will be refused
        self._n_taken[node] = stop
        self._at.setdefault(node, values.data_ptr())
        seen = self._take(node, values, start)
        if seen is None:
            return None
        largest, checksum, made_largest, made_checksum = seen
        self.made.add(made_largest, made_checksum, values.nbytes)
        return largest, checksum

    def saw(self, rank: int, packet: Packet | None) -> bool:
        """Return whether it has handed over all values of this packet, which came from `rank`."""
        if type(packet) is not Dense or not packet.count == self._count == self._n_taken.get(rank):
            return False
        return packet.values.data_ptr() == self._at[rank]


@final
class ArrivingChanges:
    """Adds quantized packets to vectors while their codes come, if the driver shows them; see `Arriving`.

    The sums are written to vectors of the method's scratch, and count where `saw` says so of the packet.
    """

    def __init__(
        self, moved: Mapping[int, tuple[Tensor, Tensor]], max_count: int, meanwhile: Callable[[], object]
    ) -> None:
        """Begin sums.

        Args:
            moved: by rank, a vector (d,) to add to, and another one of its type for the sum.
            max_count: number of coordinates up to the last one of the full vector.
            meanwhile: is called once when a chunk has come, while others are under way.
        """
        self._moved, self._max_count, self._meanwhile = moved, max_count, meanwhile
        self._coming = {rank: ComingCodes() for rank in moved}
        self._n_moved = dict.fromkeys(moved, 0)
        self.began = False
        """Whether a chunk has come, and `meanwhile` was called."""

    def chunk(self, node: int, values: Tensor, start: int) -> None:
        """Take a payload of which `start` bytes have come, as a transport hands it over; in a graph nodes are ranks."""
        if not self.began:
            self.began = True
            self._meanwhile()
        if values.dtype is not torch.uint8:
            return  # a dense frame
        (base, out), coming = self._moved[node], self._coming[node]
        coming.look(values, start, out, self._max_count)
        begin, stop = self._n_moved[node], ready_until(coming.n_ready, out.numel())
        if stop > begin:
            coming.between(begin, stop).put_moved(base[begin:stop], out[begin:stop])
            self._n_moved[node] = stop

    def saw(self, rank: int, packet: Packet) -> bool:
        """Return whether it has added all of this packet, which came from `rank`."""
        return self._n_moved[rank] == packet.count and self._coming[rank].is_start_of(packet)
