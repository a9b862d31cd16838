"""What a server and a worker receive in a round: the inbox and the reply. Letters: d parameters, N workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.torch_compat import version_of
from laconic.wire import Dense, Ends, Packet, Signs, put_across

MadeMean = tuple[Tensor, float] | tuple[Tensor, None, Ends]
MadeSum = tuple[Tensor, float, int | None]
Leaves = Literal["nothing", "values", "packed", "all"]
"""Which packets of an answer its result may be left in: dense ones of the vectors' type, those that go across, all."""


class Inbox(Mapping[int, Packet]):
    """The packets that reached the server, by worker: always in rank order, not in order of arrival."""

    def __init__(
        self,
        packets: Mapping[int, Packet],
        n_workers: int,
        empty: Callable[[], Tensor],
        skipped: frozenset[int] = frozenset(),
        vote_buffer: Callable[[], Tensor] | None = None,
        made_mean: Callable[[Mapping[int, Packet]], MadeMean | None] | None = None,
        made_sum: Callable[[Mapping[int, Packet]], MadeSum | None] | None = None,
    ) -> None:
        """Make the inbox of one exchange. A worker in neither `packets` nor `skipped` was not delivered.

        Args:
            packets: by worker.
            n_workers: N.
            empty: makes a vector of the server's slice with arbitrary content, valid for this round.
            skipped: the workers that sent the control frame SKIP.
            vote_buffer: makes an int8 vector of the same length with arbitrary content.
            made_mean: returns the mean of these packets, (d,), and its largest magnitude or its ends, if it is there.
            made_sum: returns what `made_sum` does.
        """
        self._packets = dict(sorted(packets.items()))
        self.n_workers = n_workers
        self.skipped = skipped
        self._empty = empty
        self._vote_buffer = vote_buffer
        self._made_mean, self._made_sum = made_mean, made_sum
        self._summed: _Sum | None = None  # the last one

    def __getitem__(self, rank: int) -> Packet:
        return self._packets[rank]

    def __iter__(self) -> Any:  # noqa: ANN401 - Mapping's own signature
        return iter(self._packets)

    def __len__(self) -> int:
        return len(self._packets)

    def values(self) -> Any:  # noqa: ANN401 - of `Mapping`, whose own looks up one packet after the other
        return self._packets.values()

    @property
    def weights(self) -> Mapping[int, int]:
        """The number of samples behind each packet, by worker. Today it is 1 for all; `mean` does not read it."""
        return dict.fromkeys(self._packets, 1)

    def sum(self, *, divisor: int = 1) -> Tensor:
        """Return the sum of the dense forms, (d,), added in rank order, divided by `divisor`. Zero without any packet.

        The vector is new and may be overwritten. It is valid until the end of the round, or while a memory holds it.
        """
        if self._made_mean is not None and divisor == len(self):
            made, self._made_mean = self._made_mean(self._packets), None  # once: it may be overwritten
            if made is not None:
                return self._note_sum(*made)
        total, packets = self._empty(), list(self._packets.values())
        if not packets:
            return total.zero_()
        dense = [packet for packet in packets if type(packet) is Dense]
        largest = Dense.put_sum(dense, total, divisor) if len(dense) == len(packets) else None
        if largest is not None:
            return self._note_sum(total, largest)
        kind = type(packets[0])
        done = all(type(packet) is kind for packet in packets) and kind.sum_into(packets, total, divisor)
        if isinstance(done, tuple):
            return self._note_sum(total, ends=done)
        if done:
            return total
        packets[0].put_as_sum(total)
        for packet in packets[1:]:
            packet.add_to(total)
        return total if divisor == 1 else total.div_(divisor)

    def made_sum(self) -> MadeSum | None:
        """Return the sum of all workers' packets, divided as `Algorithm.sum_divisor` says, if it was made already.

        With its largest magnitude, and the CRC-32 of its bytes if that is known. It may be overwritten.
        """
        return None if self._made_sum is None else self._made_sum(self._packets)

    def _note_sum(self, total: Tensor, largest: float | None = None, ends: Ends | None = None) -> Tensor:
        self._summed = _Sum(total, version_of(total), largest, ends)
        return total

    def largest_in(self, vector: Tensor) -> float | None:
        """Return the largest magnitude of the last sum if that is `vector`, unchanged; None where it is not known."""
        known = self._summed
        return known.largest if known is not None and known.is_still(vector) else None

    def ends_of(self, vector: Tensor) -> Ends | None:
        """Return the minimum and the maximum, (1,) each, of the last sum, where `largest_in` would know its largest."""
        known = self._summed
        return known.ends if known is not None and known.is_still(vector) else None

    def votes(self) -> Tensor:
        """Return the numbers of `sum`, (d,), as int8 if all packets are signs and their sums fit into it.

        The vector is valid until the end of the round: no memory may hold it.
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

    def sign_agreement(self) -> tuple[int, int] | None:
        """Return how far signs agree where a coordinate has several: the sum of |votes|, and the number of signs.

        None unless all packets are signs, and there are two. It takes two passes over each packet.
        """
        signs = {rank: packet for rank, packet in self._packets.items() if isinstance(packet, Signs)}
        if len(signs) < max(2, len(self)):
            return None
        masks = {rank: replace(packet, packed=torch.zeros_like(packet.packed)) for rank, packet in signs.items()}
        votes, cast = self.votes(), Inbox(masks, self.n_workers, self._empty, vote_buffer=self._vote_buffer).votes()
        several = cast > 1  # a vote always agrees with itself
        alike, possible = ((each * several).sum(dtype=torch.float64) for each in (votes.abs(), cast))
        return int(alike), int(possible)

    def mean(self) -> Tensor:
        """Return the mean over the packets that are here, (d,), like `sum`. Zero without any packet."""
        return self.sum(divisor=max(1, len(self)))


class _Sum(NamedTuple):
    """The last sum of an inbox, and what is known of it."""

    total: Tensor
    version: int
    largest: float | None
    ends: Ends | None

    def is_still(self, vector: Tensor) -> bool:
        """Return whether it is this vector, unchanged."""
        return self.total is vector and self.version == version_of(vector)


@dataclass(frozen=True, kw_only=True)
class InParts:
    """An answer that a worker applies, in packets: whoever applies it writes them to where they go, or takes views."""

    parts: tuple[Packet, ...]
    """The servers' answers in order of coordinates, which are those of the full vector."""
    count: int
    """Length of the vector (d,) that they make."""

    @property
    def values(self) -> list[Tensor]:
        """The values of dense packets, (count,) each, where they are."""
        return [part.values for part in self.parts if type(part) is Dense]

    def dense(self) -> Tensor:
        """Return the vector (d,)."""
        vector, start = new_vector(self.count, self.parts[0].dtype), 0
        for part in self.parts:
            part.put_into(vector[start : start + part.count])
            start += part.count
        return vector

    def put_across(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors, one behind the other, of d elements in all."""
        put_across(self.parts, tensors)

    def split(self, sizes: Sequence[int]) -> list[Tensor]:
        """Return consecutive tensors (size,), d elements in all: views of values, copied where a part ends within."""
        its_sizes: list[list[int]] = [[]]  # their sizes, by part
        n_views, left = [], self.parts[0].count
        for size in sizes:
            n, more = 1, size
            while more > left:
                if left:
                    its_sizes[-1].append(left)
                    n += 1
                more -= left
                left = self.parts[len(its_sizes)].count
                its_sizes.append([])
            its_sizes[-1].append(more)
            left -= more
            n_views.append(n)
        both = zip(self.parts, its_sizes, strict=True)
        views = chain.from_iterable(part.dense().split_with_sizes(some) for part, some in both)
        return [next(views) if n == 1 else torch.cat([*islice(views, n)]) for n in n_views]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a worker's generator is resumed with."""

    delivered: bool
    """False if the worker's own packet was lost, late or refused."""
    parts: tuple[Packet, ...]
    """The servers' answers in order of coordinates; those that are missing count as zero."""
    count: int
    """Length of the vector that the answers are about."""
    offset: int = 0
    """Number of that vector's first coordinate."""
    empty: Callable[[], Tensor]
    """Makes a vector (count,) with arbitrary content."""
    packets: Mapping[int, Packet] = field(default_factory=dict)
    """Without a server: the neighbors' packets, in rank order."""
    take_made: Callable[[Packet], Tensor | None] | None = None
    """Returns the dense form (d,) of a packet, once, if it was made while the packet came."""
    home: tuple[torch.dtype, torch.device] | None = None
    """Type and device of what `empty` makes, where it is known without making one."""
    leaves: Leaves = "nothing"
    """Of which packets a result may be left in parts for who applies it."""

    @property
    def packet(self) -> Packet:
        """The packet of the single server."""
        (packet,) = self.parts
        return packet

    def result(self) -> Tensor | InParts:
        """Return the answer as what the worker applies: `dense()`, or the packets that it would be made of."""
        n_left = 0
        for part in () if self.leaves == "nothing" else self.parts:
            if type(part) is Dense:
                is_left = self.leaves != "packed" and self.home == (part.values.dtype, part.values.device)
            else:
                is_left = self.leaves != "values" and part.goes_across
            n_left += part.count if is_left else 0
        if n_left < self.count or (len(self.parts) == 1 and type(self.parts[0]) is Dense):
            return self.dense()
        return InParts(parts=self.parts, count=self.count)

    def dense(self) -> Tensor:
        """Return the answer as a vector (d,), zero where no server sent anything."""
        parts = self.parts
        if len(parts) == 1 and parts[0].count == self.count:
            part = parts[0]
            if type(part) is Dense and self.home == (part.values.dtype, part.values.device):
                return part.values  # it already has a vector
            made = None if self.take_made is None else self.take_made(part)
            if made is not None:
                return made
            full = self.empty()
            if type(part) is Dense:
                return part.dense().to(full)  # to the device and dtype of the model
            part.put_into(full)
            return full
        full, n_sent = self.empty(), 0
        for part in parts:
            n_sent += part.count
        if n_sent < self.count:
            full.zero_()
        if not (parts[1:] and type(parts[0]).put_in_row(parts, full, parts[0].offset - self.offset)):
            for part in parts:
                part.put_at(full, part.offset - self.offset)
        return full

    def divided(self, divisor: float) -> Tensor:
        """Return `dense()` divided by a number, in one pass where possible: a vector that nobody else has."""
        full, n_sent = self.empty(), 0
        for part in self.parts:
            n_sent += part.count
        if n_sent < self.count:
            full.zero_()
        for part in self.parts:
            out = full[part.offset - self.offset :][: part.count]
            if type(part) is Dense and self.home == (part.values.dtype, part.values.device):
                torch.div(part.values, divisor, out=out)
            else:
                part.put_into(out)
                out.div_(divisor)
        return full
