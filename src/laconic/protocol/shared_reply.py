"""Shortcuts of the simulator: packets are not split between servers, and all workers share one decoded answer.

If no fault can damage a frame, only the number of its bytes matters, which is known without encoding it. Several
servers may serve a method only where splitting the vector changes no bit, so one server of all of it gives the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from laconic.contract import Reply
from laconic.torch_compat import version_of
from laconic.wire import Dense


class Shared:
    """One answer's dense form, computed for the worker that asks before the others and shared by all.

    A worker that changes it in place owns it from then on, and the next worker gets a new one.
    """

    def __init__(self, empty: Callable[[], Tensor]) -> None:
        """`empty` returns an uninitialized vector of the answer's length."""
        self.empty = empty
        self._full: Tensor | None = None
        self._version = 0

    def dense(self, make: Callable[[], Tensor]) -> Tensor:
        """Return the vector; call `make` if there is none yet or a worker has changed it."""
        if self._full is None or version_of(self._full) != self._version:
            self._full = make()
            self._version = version_of(self._full)
        return self._full


@dataclass(frozen=True, kw_only=True)
class SharedReply(Reply):
    """A reply whose dense form is shared with other workers of this process."""

    shared: Shared

    def dense(self) -> Tensor:
        return self.shared.dense(self._made)

    def _made(self) -> Tensor:
        if len(self.parts) == 1 and isinstance(self.parts[0], Dense):  # the packet's own vector must not be changed
            return self.empty().copy_(self.parts[0].dense())
        return super().dense()
