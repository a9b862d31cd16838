"""All workers and servers of a job in one process, exchange by exchange.

An answer that all workers get is decoded once, and one that all compute is computed once. Frames are encoded, or only
their sizes are computed: then packets stay unsplit, and one server serves all slices (`protocol/frame_sizes.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from random import Random

from torch import Tensor

from laconic.errors import WireError
from laconic.faults.injector import FaultInjector
from laconic.protocol.abort import Abort
from laconic.protocol.frame_sizes import (
    as_received,
    control_sizes,
    frame_sizes,
    packet_as_received,
    sizes_where_aborted,
)
from laconic.protocol.frames import Answer
from laconic.protocol.job import Job, PlannedExchange
from laconic.protocol.legs import Answering, Pattern
from laconic.protocol.ring_allreduce import ring_bytes, ring_sum
from laconic.protocol.server import ServerSession
from laconic.protocol.shared_reply import Shared, SharedReply
from laconic.protocol.worker import WorkerSession
from laconic.telemetry.meter import FrameSizes
from laconic.wire import Dense, Encoded, Frame, Packet, encode


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """What one exchange sent, and how a worker continues."""

    pattern: Pattern
    up: Mapping[int, Sequence[int]]
    """Bytes of the frames of each worker, by its node; of its vector, if the engine adds up."""
    receive: Callable[[WorkerSession], None]
    """Continue one worker with the answer. Call it once for each worker that takes part."""
    down: Sequence[int] = ()
    """Bytes of the answers, by server."""

    def served_by(self, node: int) -> tuple[int, int] | None:
        """Return the frames that a server on this node received from other nodes or sent there, and their bytes."""
        shard = self.pattern.served_at.get(node)
        if shard is None or self.pattern.answering is not Answering.SERVERS:
            return None
        n_others, n_bytes = len(self.up), self._uploaded[shard]
        if node in self.up:  # what a rank sends to itself crosses no link
            n_others, n_bytes = n_others - 1, n_bytes - self.up[node][shard]
        return 2 * n_others, n_bytes + n_others * self.down[shard]

    @cached_property
    def _uploaded(self) -> list[int]:
        """Bytes that all workers send to each server."""
        return [sum(sizes) for sizes in zip(*self.up.values(), strict=True)]


class LockStep:
    """Runs one exchange at a time, of workers that have begun the round."""

    def __init__(
        self,
        job: Job,
        servers: Sequence[ServerSession],
        injector: FaultInjector,
        *,
        unsplit: bool,
        scratch: Callable[[], Tensor],
        delivery: Random | None = None,
        phase: Callable[[str], object] = lambda name: None,
    ) -> None:
        """Set up the executor.

        Args:
            job: the training job.
            servers: all servers; one of all slices if `unsplit`.
            injector: the faults.
            unsplit: whether only the sizes of frames are computed.
            scratch: makes a vector (d,) for the answer that workers share.
            delivery: the order in which frames reach a server, if it is not that of the workers' ranks.
            phase: called at the end of each "encode" of a worker, "serve" of a server, and "read" of all answers.
        """
        self.job, self.servers, self.injector = job, servers, injector
        self.unread: frozenset[int] = frozenset()
        """Ranks whose frames of the last exchange some server could not decode."""
        self._unsplit, self._scratch, self._delivery, self._phase = unsplit, scratch, delivery, phase

    def exchange(self, present: Sequence[WorkerSession], round_: int, number: int, lr: float) -> Exchanged:
        """Run exchange `number` of a round up to the point where every worker may receive its answer.

        Args:
            present: the workers that take part.
            round_: number of the round.
            number: number of the exchange in the round.
            lr: learning rate of this round.

        Raises:
            WireError: for a frame that cannot be decoded, unless faults damage frames.
        """
        planned = self.job.exchanges_in(round_)[number]
        pattern = planned.pattern
        if pattern.answering is Answering.ENGINE:
            return self._add_up(planned, present)
        if pattern.answering in (Answering.SERVERS, Answering.EVERY_WORKER) and self._unsplit:
            return self._serve_unsplit(planned, present, (round_, number), lr)
        if pattern.answering is Answering.NOBODY and self._unsplit and not self.injector.expected:
            return self._pass_on_unencoded(pattern, present)
        outgoing = {}
        for worker in present:
            outgoing[worker.rank] = self.injector.send(worker, round_, number)
            self._phase("encode")
        if pattern.answering is Answering.NOBODY:
            return self._pass_on(pattern, present, (round_, number), outgoing)
        return self._serve(pattern, present, (round_, number), outgoing, lr)

    def _serve(
        self,
        pattern: Pattern,
        present: Sequence[WorkerSession],
        place: tuple[int, int],
        outgoing: Mapping[int, Mapping[int, Encoded]],
        lr: float,
    ) -> Exchanged:
        """Answer encoded frames, by servers or by every worker; the latter is done once for all."""
        (round_, number), injector = place, self.injector
        delivered, unread = set(outgoing), set[int]()
        replies: list[tuple[Frame, Tensor | None]] = []
        served = pattern.answering is Answering.SERVERS
        for index, server in enumerate(self.servers):
            arriving = injector.arriving(outgoing, index, round_, number)
            ranks = list(arriving)
            if self._delivery is not None:
                self._delivery.shuffle(ranks)
            for group in [[rank] for rank in ranks] if pattern.one_by_one else [ranks]:
                server.open(round_, number, lr)
                for rank in group:
                    try:
                        server.take(rank, arriving[rank])
                    except WireError:
                        if not injector.expected:
                            raise
                        unread.add(rank)
                reply = server.answer()
                data = encode(reply) if served else None
                self._phase("serve")
            replies.append((reply, data))
            delivered &= arriving.keys()
        delivered -= unread
        self.unread = frozenset(unread)
        up = _sizes(present, outgoing)
        encoded = [data for _, data in replies if data is not None]
        if not served:
            answer = as_received(replies[0][0], self.job.spec.stop)
            total = sum(n_bytes for (n_bytes,) in up.values())
            self._phase("read")
            return Exchanged(
                pattern=pattern, up=up,
                receive=lambda worker: worker.receive_own_answer(answer, total - up[worker.node][0]),
            )  # fmt: skip
        answers = {index: Answer.read(reply, self.job, index, round_, number) for index, reply in enumerate(encoded)}
        self._phase("read")
        return Exchanged(
            pattern=pattern, up=up, down=[reply.numel() for reply in encoded],
            receive=lambda worker: worker.receive(answers, delivered=worker.rank in delivered),
        )  # fmt: skip

    def _serve_unsplit(
        self,
        planned: PlannedExchange,
        present: Sequence[WorkerSession],
        place: tuple[int, int],
        lr: float,
    ) -> Exchanged:
        """Do the same with one server of all that there is, and compute only the sizes of the frames."""
        (server,), (round_, number) = self.servers, place
        packets: dict[int, Packet] = {}
        skipped, lost, up = set[int](), set[int](), dict[int, Sequence[int]]()
        aborted, may_be_lost = Abort.NO, self.injector.expected
        for worker in present:
            rank = worker.rank
            if may_be_lost:
                sent, sent_sizes = self.injector.send_unsplit(worker, round_, number)
            else:
                sent, sent_sizes = worker.outgoing_unsplit()
            up[worker.node] = sent_sizes.n_bytes
            if may_be_lost and not self.injector.is_awaited(rank):
                lost.add(rank)
            elif sent is not None:
                packets[rank] = sent
            else:
                skipped.add(rank)
                aborted = max(aborted, worker.aborted)
        server.open(round_, number, lr)
        answer = server.serve_packets(packets, frozenset(skipped), aborted)
        reply, sizes = self._shared_reply(planned, server, answer)
        missed = replace(reply, delivered=False) if lost else reply
        aborted = server.aborted
        if planned.pattern.answering is Answering.EVERY_WORKER:
            made = Frame.carrying(present[0].header(), reply.parts[0] if reply.parts else None, aborted=bool(aborted))
            total = sum(n_bytes for (n_bytes,) in up.values())
            return Exchanged(
                pattern=planned.pattern, up=up,
                receive=lambda worker: worker.receive_own_answer(made, total - up[worker.node][0], reply),
            )  # fmt: skip
        return Exchanged(
            pattern=planned.pattern, down=sizes.n_bytes, up=up,
            receive=lambda worker: worker.receive_unsplit(missed if worker.rank in lost else reply, sizes, aborted),
        )  # fmt: skip

    def _shared_reply(
        self, planned: PlannedExchange, server: ServerSession, answer: Packet | None
    ) -> tuple[SharedReply, FrameSizes]:
        """Return what all workers continue with, and the sizes of the frames that it would come in."""
        job, exchange = self.job, planned.exchange
        if answer is not None:
            answer = packet_as_received(answer, job.spec.stop)
            sizes = frame_sizes(answer, planned.bounds, job.algorithm, "down")
        elif server.refused is not None:
            sizes = sizes_where_aborted(server.refused, planned.shards, job.algorithm, server.would_refuse)
        else:
            sizes = control_sizes(len(planned.bounds) - 1, skips=not server.aborted)
        shared = Shared(self._scratch if planned.is_full else partial(job.zeros, exchange.count))
        reply = SharedReply(
            delivered=True, parts=() if answer is None else (answer,), count=exchange.count, offset=exchange.offset,
            empty=shared.empty, home=(job.dtype, job.device), shared=shared,
        )  # fmt: skip
        return reply, sizes

    def _pass_on(
        self,
        pattern: Pattern,
        present: Sequence[WorkerSession],
        place: tuple[int, int],
        outgoing: Mapping[int, Mapping[int, Encoded]],
    ) -> Exchanged:
        """Give every worker its neighbors' frames. Whether one of them aborts the round, all learn at its end."""
        answers = {
            rank: Answer.read_from_peer(frames[0], self.job, rank, *place)
            for rank, frames in outgoing.items()
            if frames
        }
        self._phase("read")
        return self._passed_on(pattern, answers, _sizes(present, outgoing))

    def _pass_on_unencoded(self, pattern: Pattern, present: Sequence[WorkerSession]) -> Exchanged:
        """Do the same with frames that are not encoded, where there is no fault."""
        answers, up = dict[int, Answer](), dict[int, list[int]]()
        for worker in present:
            (n_copies,) = pattern.ends[worker.node].n_copies
            up[worker.node] = []
            if not n_copies:
                continue  # no neighbor gets it
            sent = Frame.carrying(worker.header(), worker.packet, aborted=bool(worker.aborted))
            answer = answers[worker.rank] = Answer.own(sent, self.job)
            up[worker.node].append(answer.n_bytes)
            for number in range(n_copies):
                worker.count("up", sent, answer.n_bytes, lead=number == 0)
        return self._passed_on(pattern, answers, up)

    def _passed_on(self, pattern: Pattern, answers: Mapping[int, Answer], up: Mapping[int, list[int]]) -> Exchanged:
        """Return an exchange in which workers get the frames of their neighbors, by rank."""
        rank_at = self.job.layout.rank_at

        def receive(worker: WorkerSession) -> None:
            senders = [rank_at[node] for node in pattern.ends[worker.node].uploaders]
            worker.receive({rank: answers[rank] for rank in senders})

        return Exchanged(pattern=pattern, up=up, receive=receive)

    def _add_up(self, planned: PlannedExchange, present: Sequence[WorkerSession]) -> Exchanged:
        """Run the engine's ring all-reduce: the same order of addition, the same bytes."""
        n, d = len(present), planned.exchange.count
        packets = [worker.packet for worker in present if isinstance(worker.packet, Dense)]
        aborted = max(worker.aborted for worker in present)
        if not aborted:
            aborted = max(self._write_share(worker, d) for worker in present)
        mean = self.job.zeros(d) if aborted else ring_sum([packet.values for packet in packets])
        one_direction = ring_bytes(d, n, mean.element_size())
        self._phase("sum")
        return Exchanged(
            pattern=planned.pattern, up={worker.node: [d * mean.element_size()] for worker in present},
            receive=lambda worker: worker.receive_sum(mean, one_direction, aborted),
        )  # fmt: skip

    def _write_share(self, worker: WorkerSession, d: int) -> Abort:
        aborted = worker.write_share(0, d)
        self._phase("encode")
        return aborted


def _sizes(present: Sequence[WorkerSession], outgoing: Mapping[int, Mapping[int, Encoded]]) -> dict[int, list[int]]:
    return {worker.node: [data.numel() for data in outgoing[worker.rank].values()] for worker in present}
