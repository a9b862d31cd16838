"""What the simulator need not do: cut a packet among servers, or work out one answer once for every worker.

Where no fault can befall a frame, its bytes matter by their number alone, and that is known without them. A method may
be served by several servers only if it is separable: one that serves the whole vector then gives the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from laconic.contract import Memory, Reply
from laconic.torch_compat import version_of
from laconic.wire import Dense


class Shared:
    """One answer's dense form, worked out for the first worker that asks and lent to all.

    Whoever changes it in place keeps it, and the next one gets another.
    """

    def __init__(self, empty: Callable[[], Tensor]) -> None:
        """empty: makes a vector with anything in it, as long as the answer."""
        self.empty = empty
        self._full: Tensor | None = None
        self._version = 0

    def dense(self, make: Callable[[], Tensor]) -> Tensor:
        """The vector, by `make` where there is none or somebody has changed it."""
        if self._full is None or version_of(self._full) != self._version:
            self._full = make()
            self._version = version_of(self._full)
        return self._full


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
        self.scratch = memory.scratch

    def end_round(self, results: Sequence[Tensor], memories: Sequence[Memory]) -> None:
        """Make free what was taken, except for what is among the results or what somebody keeps."""
        for vector in self._memory.borrowed:
            if any(memory.holds(vector) for memory in memories):
                self._memory.release(vector)
        for result in results[1:]:
            self._memory.release(result)
        self._memory.commit(results[0] if results else None)

    def reclaim(self, is_used: Callable[[Tensor], bool] = lambda _: False) -> None:
        """See Memory."""
        self._memory.reclaim(is_used)
