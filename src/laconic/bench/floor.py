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
    """Moves what the last step of a method has moved, over the same ranks.

    Each message has memory of its own, as a method's have, which was written before: the system gives all pages that
    were never written one page of zeros, which stays in the caches.
    """

    def __init__(self, moved: Callable[[], Sequence[Moved]]) -> None:
        """`moved`: returns what this rank's channel has moved in that step, in order."""
        self._last = moved
        self._buffers: list[Tensor] = []  # by the order of their use
        self.calls: list[tuple[Tensor | None, list[tuple[Tensor, int]], list[tuple[Tensor, int]]]] = []
        """Of each call of the channel: what is summed, and what is received and sent, with the peers."""

    def prepare(self) -> None:
        buffers = iter(self._buffers)
        used: list[Tensor] = []

        def memory(n_bytes: int) -> Tensor:
            there = next(buffers, None)
            fits = there is not None and n_bytes <= there.numel() <= 2 * n_bytes
            used.append(there if there is not None and fits else torch.ones(n_bytes + 7, dtype=torch.uint8))
            return used[-1][:n_bytes]

        self.calls = []
        for each in self._last():
            received = [(memory(n_bytes), peer) for peer, n_bytes in each.received.items()]
            sent = [(memory(n_bytes), peer) for peer, n_bytes in each.sent.items()]
            summed = memory(each.summed // 4 * 4).view(torch.float32) if each.summed else None
            self.calls.append((summed, received, sent))
        self._buffers = used

    def step(self) -> None:
        for summed, received, sent in self.calls:
            if summed is not None:
                dist.all_reduce(summed)
                continue
            works = [dist.irecv(into, peer) for into, peer in received]
            works += [dist.isend(data, peer) for data, peer in sent]
            for work in works:
                assert work is not None, "every rank is in the group"
                work.wait()
