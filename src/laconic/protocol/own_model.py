"""A server's own model, as a method steps it, and vectors that a memory may not have: it gets copies."""

from collections.abc import Container
from typing import Protocol, final

from torch import Tensor

from laconic.contract import Algorithm, Inbox, Server, Side, storage_of
from laconic.wire import Packet


class Descend(Protocol):
    """Steps the server's own model."""

    def __call__(self, direction: Tensor, largest: float | None = None, /) -> Tensor:
        """Step along a direction (d,), whose largest magnitude may be known, and return the new parameters (d,)."""


@final
class OwnModel:
    """The server's own model, as a method steps it."""

    def __init__(self, step: Descend) -> None:
        """`step`: steps it. What it returns may be the model's own memory."""
        self._step = step
        self._inbox: Inbox | None = None  # while it is served
        self._returned: set[int] = set()  # the storages of what it has returned meanwhile

    def serve(self, algorithm: Algorithm, view: Server, inbox: Inbox) -> Packet | None:
        """Return the method's answer, and let its memory have copies of the model."""
        self._inbox = inbox
        try:
            packet = algorithm.serve(view, inbox)
            keep_copies(view, self._returned)
            return packet
        finally:
            self._inbox = None
            self._returned.clear()

    def descend(self, direction: Tensor) -> Tensor:
        """Step along a direction (d,); returns the new parameters (d,)."""
        assert self._inbox is not None, "a method descends while it serves"
        parameters = self._step(direction, self._inbox.largest_in(direction))
        self._returned.add(storage_of(parameters))
        return parameters


def keep_copies(side: Side, storages: Container[int], *, may_stay: bool = False) -> None:
    """Let a memory have copies of what this step has written of these storages, which are others'.

    Args:
        side: has the memory.
        storages: where they begin.
        may_stay: whether what a slot lets stay is not copied.
    """
    for name, value in side.memory.written.items():
        slot = side.memory.slots.find(name) if may_stay else None
        if storage_of(value) in storages and not (slot is not None and slot.stays):
            side.memory[name] = side.scratch().copy_(value) if value.numel() == side.count else value.clone()
