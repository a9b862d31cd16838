"""What a round keeps and applies is finite: it is looked for only where something is large.

Values are usually far from the largest float, so that no sum of them, no quotient and no product overflows within one
round. A session sees that at no cost: a packet's numbers bound the vector that it was made of, and the answer's numbers
what is applied. In a round with a large number (above 2**64, in float64 2**512) every vector is looked through before
it is committed or applied; what only this rank can know, before its packet leaves. The memories are every 32nd round.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from laconic.contract import Algorithm, InParts, Memory, Result
from laconic.kernels.api import absolute_maximum
from laconic.protocol.job import PlannedExchange
from laconic.wire import Packet

_LARGE = {torch.float32: 2.0**64, torch.float64: 2.0**512}
_LARGE_LR = 2.0**32
_MARGIN = 4.0  # what is sent and what is read may still be added up
_ROUNDS = 32


class Magnitudes:
    """Whether a worker or a server has large numbers in a round."""

    def __init__(self, algorithm: Algorithm, memory: Memory) -> None:
        """Watch the rounds of a method. One that keeps nothing and applies answers as they are needs no watching."""
        slots = memory.slots
        self.are_watched = bool(slots.table) or algorithm.reads_lr or algorithm.is_decentralized
        """Whether something can overflow behind what is sent."""
        self.are_large = False
        """Whether there is a large number in this round."""
        self.large = _LARGE[slots.dtype]
        """A number above it is large."""
        self.safe = torch.finfo(slots.dtype).max / _MARGIN
        """No number that is sent or read may be above it in a round with large ones."""
        self.largest = math.inf
        """The largest number that can be applied, where parameters have a shorter type than vectors."""
        self._reads_lr, self._reads_vector = algorithm.reads_lr, not algorithm.takes_gradient_tensors
        self._lr = 1.0
        self._memory = memory
        self._memory_is_large = False
        self._next_look = 0

    def begin(self, round_: int, lr: float) -> None:
        """Start a round."""
        if round_ >= self._next_look:
            self._look_through_memory(round_)
        self._lr = lr or 1.0  # nothing is divided by 0
        self.are_large = self._memory_is_large or not 1 / _LARGE_LR <= self._lr <= _LARGE_LR

    def limit_in(self, planned: PlannedExchange) -> float | None:
        """Return the magnitude to look for in the input of an exchange, where the packet does not show it."""
        return self.large if self._reads_vector and not planned.shows_magnitudes else None

    def may_send(self, packet: Packet | None, read: Tensor | None, *, exceeds: bool) -> bool:
        """Return whether nothing overflows on this rank after its packet has left, when others cannot learn of it.

        Args:
            packet: the packet; None for a skip.
            read: the gradient (d,), or what the method has made of it in place; None if there is none.
            exceeds: whether the input is large.
        """
        if exceeds or (packet is not None and not packet.absolute_maximum <= self.large):  # NaN, too
            self.are_large = True
        if not self.are_large:
            return True
        vectors = () if read is None or not self._reads_vector else (read,)
        return (packet is None or packet.absolute_maximum <= self.safe) and self.may_be_written(vectors)

    def saw(self, packets: Iterable[Packet]) -> None:
        """Take note of packets that are sent or received."""
        for packet in packets:
            if not packet.absolute_maximum <= self.large:  # NaN, too
                self.are_large = True

    def answer_holds(self, answer: Packet | None) -> bool:
        """Return whether an answer can be applied, also where workers have divided it by the learning rate."""
        limit = min(self.safe, self.largest) * min(1.0, self._lr) if self._reads_lr else self.largest
        return answer is None or (answer.absolute_maximum <= limit and answer.finite)

    def may_be_written(self, more: Iterable[Tensor] = ()) -> bool:
        """Return whether what this step has written to the memory is finite with room for sums, and `more` vectors."""
        return within((*self._memory.written.values(), *more), self.safe)

    def is_finite(self, result: Result | None) -> bool:
        """Return whether what this step has written and its result are finite."""
        assert not isinstance(result, InParts), "an answer with large numbers is written"
        vector = result if isinstance(result, Tensor) or result is None else result.values.dense()
        vectors = (*self._memory.written.values(), *(() if vector is None else (vector,)))
        return all(within((each,), torch.finfo(each.dtype).max) for each in vectors if each.is_floating_point())

    def end(self, round_: int) -> None:
        """End a round with large numbers that has taken effect."""
        self._look_through_memory(round_)

    def restart(self) -> None:
        """Look through the memory at the next round, since another one was loaded."""
        self._next_look = 0

    def _look_through_memory(self, round_: int) -> None:
        self._memory_is_large = not within(self._memory.committed.values(), self.large)
        self._next_look = round_ + _ROUNDS


def within(vectors: Iterable[Tensor], limit: float) -> bool:
    """Return whether no magnitude in vectors of floats is above a limit, or NaN; integers are left out."""
    return all(absolute_maximum(vector.reshape(-1)) <= limit for vector in vectors if vector.is_floating_point())


def residual_norm(memories: Sequence[Memory]) -> float:
    """Return the norm of the residuals in workers' memories; 0 where the method keeps none."""
    norms = [float(memory["residual"].norm()) for memory in memories if "residual" in list(memory)]
    return math.hypot(*norms)
