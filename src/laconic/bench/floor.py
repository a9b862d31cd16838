"""The floor of a step: the engine alone, moving the bytes that a method has just moved, in the same pattern.

Nothing is encoded, decoded or computed. Each message is sent in one piece, from and into memory that is there.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.bench.contender import Contender
from laconic.telemetry.moved import Moved


class Floor(Contender):
    """Moves what the last step of a method has moved, over the same ranks."""

    def __init__(self, moved: Callable[[], Sequence[Moved]]) -> None:
        """`moved`: returns what this rank's channel has moved in that step, in order."""
        self._last = moved
        self._now: Sequence[Moved] = ()
        self._memory = torch.zeros(0, dtype=torch.uint8)  # what is sent, and what is summed
        self._received: dict[int, Tensor] = {}  # to receive into, by sender

    def prepare(self) -> None:
        self._now = self._last()
        largest = max((max(each.summed, *each.sent.values(), 0) for each in self._now), default=0)
        if self._memory.numel() < largest:
            self._memory = torch.zeros((largest + 7) // 8 * 8, dtype=torch.uint8)
        for each in self._now:
            for peer, n_bytes in each.received.items():
                if peer not in self._received or self._received[peer].numel() < n_bytes:
                    self._received[peer] = torch.zeros(n_bytes, dtype=torch.uint8)

    def step(self) -> None:
        for each in self._now:
            if each.summed:
                dist.all_reduce(self._memory[: each.summed // 4 * 4].view(torch.float32))
                continue
            works = [dist.irecv(self._received[peer][:n_bytes], peer) for peer, n_bytes in each.received.items()]
            works += [dist.isend(self._memory[:n_bytes], peer) for peer, n_bytes in each.sent.items()]
            for work in works:
                assert work is not None, "every rank is in the group"
                work.wait()
