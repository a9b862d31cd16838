"""One round at the end of a backward pass: the gradients of this rank's shard in, directions out.

FSDP casts, offloads and adds up what a hook leaves, group by group. So the hook only notes that gradients are reduced
in this pass; when FSDP has ended it, all of them are where the optimizer finds them, and the round runs over those.
"""

from typing import Any

import torch
from torch import Tensor

from laconic.ddp.slice_rounds import SliceRounds
from laconic.fsdp.local_shards import LocalShards
from laconic.torch_compat import at_end_of_backward


class ShardRounds(SliceRounds):
    """The rounds of a method over this rank's shard of a model."""

    def __init__(self, local: LocalShards, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401
        """Set up the rounds over `local`; see `SliceRounds`."""
        super().__init__(*arguments, **settings)
        self._local = local
        self._streams: set[torch.cuda.Stream] | None = None  # of hooks in the pass that is running

    def take(self, reduced: Tensor) -> None:
        """Take note that FSDP has averaged some gradients inside the node."""
        if self._streams is None:
            self._streams = set()
            at_end_of_backward(self._end_pass)
        if reduced.is_cuda:
            self._streams.add(torch.cuda.current_stream(reduced.device))

    @torch.no_grad()
    def _end_pass(self) -> None:
        streams, self._streams = self._streams or set(), None
        local = self._local
        for stream in streams:
            torch.cuda.current_stream(stream.device).wait_stream(stream)
        local.take_gradients()
        absent = local.absent()
        try:
            now = self._begin()
            if streams:
                now.ready.append(torch.cuda.current_stream(self._flat.device).record_event())
            self._note(now, enumerate(local.gradients(absent)))
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
