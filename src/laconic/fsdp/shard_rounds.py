"""One round in a backward pass: the gradients of this rank's shard in, directions out.

FSDP calls a hook for each group of parameters when it has averaged their gradients inside the node. Afterwards it still
casts, offloads and adds up what the hook leaves. So a group's gradients are read when the next group's hook is called,
or when FSDP has ended the pass: then they are where the optimizer finds them. Slices begin in one order, whatever the
order of the hooks; the last one begins when the pass has ended, and says so if this node has used other parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from laconic.ddp.slice_rounds import Backward, SliceRounds
from laconic.fsdp.local_shards import LocalShards
from laconic.torch_compat import at_end_of_backward, backward_pass


@dataclass(kw_only=True)
class _Pass:
    """A backward pass that is running."""

    number: int
    """As autograd counts them."""
    reduced: dict[int, None] = field(default_factory=dict)
    """The places of parameters whose gradients were averaged in it, in order."""
    streams: set[torch.cuda.Stream] = field(default_factory=set)
    """In which FSDP has called hooks."""
    now: Backward | None = None
    """What has begun of its round."""
    complete: set[int] = field(default_factory=set)
    """The slices whose gradients are all there."""
    absent: dict[int, Tensor] = field(default_factory=dict)
    """By place, zeros for parameters without a gradient."""


class ShardRounds(SliceRounds):
    """The rounds of a method over this rank's shard of a model."""

    def __init__(self, local: LocalShards, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401
        """Set up the rounds over `local`; see `SliceRounds`."""
        super().__init__(*arguments, **settings)
        self._local = local
        self._pass: _Pass | None = None
        self._repeated: set[int] = set()  # of parameters whose gradients are averaged several times in a pass

    def take(self, parameters: Sequence[Tensor], reduced: Tensor) -> None:
        """Take note that FSDP has averaged the gradients of some parameters inside the node.

        Raises:
            RuntimeError: if a pass before ended in the middle, or its directions were not applied, or gradients come
                again that are under way.
        """
        running = self._pass
        if running is None or running.number != backward_pass():
            if running is not None and running.now is not None:
                self._error = RuntimeError(
                    "a backward pass ended in the middle, with parts of its round on their way; attach the method anew "
                    "on every rank"
                )
            running = self._pass = _Pass(number=backward_pass())
            at_end_of_backward(self._end_pass)
        if reduced.is_cuda:
            running.streams.add(torch.cuda.current_stream(reduced.device))
        trained = [place for each in parameters if (place := self._local.place_of(each)) is not None]
        self._repeated.update(place for place in trained if place in running.reduced)
        if len(self._slices) > 1 and self._active.is_agreed and reduced.device == self._flat.device:
            self._begin_early(running)
        running.reduced.update(dict.fromkeys(trained))

    @torch.no_grad()
    def _begin_early(self, running: _Pass) -> None:
        """Begin the slices whose gradients are all there: of the groups before the one that has just been averaged."""
        if running.now is None:
            running.now = self._begin()
        now = running.now
        if self._repeated & now.gradients.keys():
            raise RuntimeError(
                "gradients of a layer that is under way come again in one backward pass, as where it is called several "
                "times; attach with overlap=False"
            )
        there = [place for place in running.reduced if place not in now.gradients and place not in self._repeated]
        if there and self._flat.device.type == "cuda":
            now.ready.append(torch.cuda.current_stream(self._flat.device).record_event())
        self._note(now, [(place, self._local.gradient_of(place, running.absent)) for place in there])
        running.complete.update(now.waiting)
        now.waiting = []
        for number in range(len(self._slices) - 1 - len(now.begun), 0, -1):
            if number not in running.complete:
                break
            now.waiting.append(number)
        self._begin_waiting(now)

    @torch.no_grad()
    def _end_pass(self) -> None:
        running = self._pass
        assert running is not None, "a hook was called in it"
        self._pass = None
        local, absent = self._local, running.absent
        for stream in running.streams:
            torch.cuda.current_stream(stream.device).wait_stream(stream)
        local.take_gradients()
        try:
            now = running.now or self._begin()
            if running.streams:
                now.ready.append(torch.cuda.current_stream(self._flat.device).record_event())
            left = [place for place in range(len(local.tensors)) if place not in now.gradients]
            self._note(now, [(place, local.gradient_of(place, absent)) for place in left])
            now.waiting = [*range(len(self._slices) - 1 - len(now.begun), -1, -1)]
            written: list[torch.cuda.Event] = []
            self._wait_for(self._end(now, lambda: self._record(written)))
            for event in written:
                event.wait()
            if not self.aborted:
                local.give(absent, self._active.now)
        finally:
            local.drop_gradients()

    def _record(self, written: list[torch.cuda.Event]) -> None:
        """Note when the thread's stream has written the directions."""
        if self._flat.device.type == "cuda":
            written.append(torch.cuda.current_stream(self._flat.device).record_event())
