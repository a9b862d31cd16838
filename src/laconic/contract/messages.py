"""What arrives at a server or a worker in a round: the inbox and the reply. Letters: d parameters, N workers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from laconic.wire import Dense, Packet, Signs


class Inbox(Mapping[int, Packet]):
    """The packets that reached the server, by worker, in rank order whatever order they came in."""

    def __init__(
        self,
        packets: Mapping[int, Packet],
        n_workers: int,
        zeros: Callable[[], Tensor],
        skipped: frozenset[int] = frozenset(),
        vote_buffer: Callable[[], Tensor] | None = None,
    ) -> None:
        """`zeros` makes a zero vector of the server's slice that lives for this round, `vote_buffer` one of int8
        that is still to be written.

        `skipped`: the workers that sent a skip notice.

        Who is in neither was not heard at all.
        """
        self._packets = dict(sorted(packets.items()))
        self.n_workers = n_workers
        self.skipped = skipped
        self._zeros = zeros
        self._vote_buffer = vote_buffer

    def __getitem__(self, rank: int) -> Packet:
        return self._packets[rank]

    def __iter__(self) -> Any:  # noqa: ANN401 - Mapping's own signature
        return iter(self._packets)

    def __len__(self) -> int:
        return len(self._packets)

    def sum(self) -> Tensor:
        """The sum of the dense forms, added in rank order: (d,). Zero when nobody sent.

        A vector of its own, which may be overwritten. It lives until the end of the round, or while a memory holds it.
        """
        total = self._zeros()
        for packet in self._packets.values():
            packet.add_to(total)
        return total

    def votes(self) -> Tensor:
        """The same numbers as `sum`, as int8 (d,) where packets of signs are so few that it holds their sums.

        It lives until the end of the round: no memory may keep it.
        """
        few_signs = len(self) <= torch.iinfo(torch.int8).max and all(isinstance(p, Signs) for p in self.values())
        if self._vote_buffer is None or not few_signs:
            return self.sum()
        total = self._vote_buffer()
        packets = list(self._packets.values())
        if not packets:
            return total.zero_()
        packets[0].put_into(total)
        for packet in packets[1:]:
            packet.add_to(total)
        return total

    def mean(self) -> Tensor:
        """The mean over those who sent: (d,), as `sum`. Zero when nobody did."""
        return self.sum().div_(max(1, len(self)))


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a worker wakes with. `delivered` is False when its own packet was lost, late or refused."""

    delivered: bool
    parts: tuple[Packet, ...]  # in order of coordinates; what is missing counts as zero
    count: int
    empty: Callable[[], Tensor]  # a vector (count,) with anything in it
    packets: Mapping[int, Packet] = field(default_factory=dict)  # without a server: the neighbours', in rank order

    @property
    def packet(self) -> Packet:
        """The answer of a single server, as it was sent."""
        (packet,) = self.parts
        return packet

    def dense(self) -> Tensor:
        """The server's answer as a vector (d,); zeros where it sent nothing."""
        full = self.empty()
        if len(self.parts) == 1 and self.parts[0].count == self.count:
            (part,) = self.parts
            if isinstance(part, Dense):  # it has its vector at hand
                return part.dense().to(full)  # its device, and float64 for short values to a float64 model
            part.put_into(full)
            return full
        if sum(part.count for part in self.parts) < self.count:
            full.zero_()
        for part in self.parts:
            part.put_into(full[part.offset : part.offset + part.count])
        return full
