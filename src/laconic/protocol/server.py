"""The server's part of a round, between algorithm and bytes; the worker's is in `worker.py`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Inbox, Memory, Scratch, Server, by_parameter, read_saved
from laconic.errors import ContractError, WireError
from laconic.protocol.abort import Abort
from laconic.protocol.frames import check_frame, read_frame
from laconic.protocol.job import Job
from laconic.protocol.layout import Shard
from laconic.protocol.round_inputs import Active
from laconic.wire import Encoded, Frame, Header, Packet, encode


class ServerSession:
    """The server, or one of several with a slice each."""

    def __init__(
        self,
        job: Job,
        index: int,
        descend: Callable[[Tensor], Tensor] | None = None,
        *,
        active: Active | None = None,
        unsplit: bool = False,
    ) -> None:
        """Set up the server.

        Args:
            job: the training job.
            index: which of the layout's servers this is. In a layout without servers, every worker has a session of
                index 0 and computes the answers itself.
            descend: steps the server's own model, for methods that claim `server_steps`.
            active: which parameters take part in a round; None for all.
            unsplit: serve the full vector, whatever the layout.
        """
        shard = (
            job.layout.shards[index] if job.layout.shards and not unsplit else Shard(0, job.spec.offset, job.spec.stop)
        )
        self.job = job
        self.index = index
        self.aborted = Abort.NO
        self.unread: frozenset[int] = frozenset()  # ranks whose frames of the last exchange were damaged
        self.refused: Packet | None = None  # the last answer, if inf or NaN in it aborted the round
        self.shard = shard
        self.scratch = Scratch(VectorPool(shard.count, job.dtype))
        self._active = active
        self.view = Server(
            rank=index, n_workers=job.layout.n_workers, spec=job.spec.part(shard.offset - job.spec.offset, shard.count),
            seed=job.seed, memory=Memory(job.server_slots(shard)), scratch=self.scratch,
        )  # fmt: skip
        if descend is not None:
            self.view.descend = descend

    def answer(
        self, round_: int, exchange: int, lr: float, frames: Mapping[int, Encoded], *, damage_expected: bool = False
    ) -> Tensor:
        """Decode the workers' frames, serve, and encode the one answer that goes to all of them.

        Args:
            round_: number of the round.
            exchange: number of the exchange in this round.
            lr: learning rate of this round.
            frames: the encoded frames, by rank.
            damage_expected: whether a frame that cannot be decoded counts as not delivered; its sender is then in
                `unread`.

        Raises:
            WireError: for a frame that cannot be decoded, unless `damage_expected`.
        """
        return encode(self.answer_frame(round_, exchange, lr, frames, damage_expected=damage_expected))

    def answer_frame(
        self,
        round_: int,
        exchange: int,
        lr: float,
        frames: Mapping[int, Encoded | Frame],
        *,
        damage_expected: bool = False,
    ) -> Frame:
        """Return the same answer before it is encoded. A worker on the server's own node passes its `Frame`."""
        shard = self._shard_in(round_, exchange)
        read: dict[int, Frame] = {}
        unread: set[int] = set()
        for rank, data in frames.items():
            if isinstance(data, Frame):
                check_frame(data, "worker", rank, round_, exchange, shard)
                read[rank] = data
                continue
            try:
                read[rank] = read_frame(data, self.job, "worker", rank, round_, exchange, shard)
            except WireError:
                if not damage_expected:
                    raise
                unread.add(rank)
        self.unread = frozenset(unread)
        packet = self.serve(round_, exchange, lr, read)
        header = Header(
            role="server", rank=self.index, round=round_, exchange=exchange,
            set_differs=self.aborted is Abort.SET_DIFFERS,
        )  # fmt: skip
        return Frame.carrying(header, packet, aborted=bool(self.aborted))

    def _shard_in(self, round_: int, exchange: int) -> Shard:
        expected = self.job.exchanges_in(round_)[exchange]
        if self.job.is_full(expected):
            return self.shard
        return Shard(self.shard.node, expected.offset, expected.offset + expected.count)

    def serve(self, round_: int, exchange: int, lr: float, frames: Mapping[int, Frame]) -> Packet | None:
        """Return the answer to the workers' frames.

        If one of the frames or the answer is not finite, it returns None and sets `aborted`.
        """
        view, shard = self.view, self._shard_in(round_, exchange)
        view.round, view.exchange, view.lr = round_, exchange, lr
        packets: dict[int, Packet] = {}
        skipped: set[int] = set()
        aborted = Abort.NO
        for rank, frame in frames.items():
            aborted = max(aborted, Abort.of(frame))
            if frame.packet is not None:
                packets[rank] = frame.packet
            else:
                skipped.add(rank)
        self.aborted = aborted
        if aborted:
            return None
        inbox = Inbox(
            packets, view.n_workers, partial(self._zeros, shard.count), frozenset(skipped),
            vote_buffer=(lambda: self.scratch(torch.int8)) if shard.count == view.count else None,
        )  # fmt: skip
        packet = self.job.algorithm.serve(view, inbox)
        if packet is not None and packet.count != shard.count:
            raise ContractError(
                f"{self.job.algorithm.name}: the server answered {packet.count} coordinates of {shard.count}"
            )
        self.aborted = Abort.unless(packet is None or packet.finite)
        self.refused = packet if self.aborted else None
        return None if self.aborted else packet

    def _zeros(self, count: int) -> Tensor:
        """Return zeros (count,) that are valid in this round, or for as long as the server's memory holds them."""
        lives_on = self.job.algorithm.mode == "arrivals"  # there an answer is sent in later rounds, too
        if count != self.view.count or lives_on:
            return torch.zeros(count, dtype=self.job.dtype)
        return self.scratch().zero_()

    def close(self, happened: bool) -> None:
        """End the round: commit the memory, or drop what was staged if the round was aborted."""
        if happened:
            if self._active is not None:
                offset, count = self.shard.offset, self.shard.count
                slices = [
                    (max(0, start - offset), min(count, stop - offset)) for start, stop in self._active.inactive()
                ]
                self.view.memory.revert([(start, stop) for start, stop in slices if start < stop])
            self.view.memory.commit()
        else:
            self.view.memory.drop()
        self.scratch.end_round(self.view.memory.values())

    def saved(self) -> dict[str, Any]:
        """Return the state between two rounds."""
        memory = self.view.memory
        return {
            "memory": by_parameter(memory.saved(), memory.slots), "link_bytes_per_s": self.view.link_bytes_per_s,
        }  # fmt: skip

    def check(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError if saved states of servers do not have what this one needs, or do not fit its slots."""
        slots = self.view.memory.slots
        slots.check_saved(read_saved([server["memory"] for server in saved], slots))

    def restore(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Continue from the saved states of servers, whose slices together must cover this one's."""
        memory = self.view.memory
        memory.restore(read_saved([server["memory"] for server in saved], memory.slots))
        self.view.link_bytes_per_s = saved[self.index]["link_bytes_per_s"] if self.index < len(saved) else None
