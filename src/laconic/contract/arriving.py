"""Dense values that a method sees while they come from its neighbors."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from laconic.wire import Dense, Packet

Take = Callable[[int, Tensor, int], float | None]
"""Takes a sender's rank, values (n,), and the number of values before them; returns the largest magnitude it wrote."""


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
        self.largest: float | None = 0.0
        """The largest magnitude that `take` has written, NaN if it has one; None if it does not say."""

    def chunk(self, node: int, values: Tensor, start: int) -> None:
        """Take values as a transport hands them over; in a graph nodes are ranks."""
        stop = start + values.numel()
        if values.dtype is not self._dtype or stop > self._count or self._n_taken.get(node, 0) != start:
            return  # the frame will be refused
        self._n_taken[node] = stop
        self._at.setdefault(node, values.data_ptr())
        largest = self._take(node, values, start)
        if largest is None or self.largest is None:
            self.largest = None
        elif self.largest == self.largest and not largest <= self.largest:  # NaN stays
            self.largest = largest

    def saw(self, rank: int, packet: Packet | None) -> bool:
        """Return whether it has handed over all values of this packet, which came from `rank`."""
        if type(packet) is not Dense or not packet.count == self._count == self._n_taken.get(rank):
            return False
        return packet.values.data_ptr() == self._at[rank]
