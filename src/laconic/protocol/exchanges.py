"""One rank's part of a round, without I/O: a generator of requests that a driver carries out over its transport."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, final

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Arriving, ArrivingChanges, InParts, Memory, Result
from laconic.protocol.abort import Abort
from laconic.protocol.frames import Answer, read_frame
from laconic.protocol.job import Job, PlannedExchange
from laconic.protocol.landing import Landing, SumWhileLanding
from laconic.protocol.landing_codes import MeanOfCodes, answer_of_codes
from laconic.protocol.layout import Shard
from laconic.protocol.legs import Answering
from laconic.protocol.own_model import Descend, keep_copies
from laconic.protocol.participation import Participation
from laconic.protocol.ring_allreduce import ring_bytes
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult
from laconic.protocol.server import ServerSession
from laconic.protocol.worker import WorkerSession
from laconic.telemetry.meter import Meter
from laconic.wire import Dense, Encoded, Frame, encode_in_place


@final
@dataclass(frozen=True, kw_only=True)
class Swap:
    """Frames to send to other nodes, and frames to receive from them."""

    outgoing: Mapping[int, Encoded]
    """By receiver."""
    expected: Sequence[int]
    """Nodes that send one frame each; one that sends none is not delivered."""
    purpose: str
    """For errors, such as "for its packet of round 7"."""
    take: Callable[[int, Encoded], object]
    """Called with the sender and each frame as it arrives."""
    landing: Landing | None = None
    """Gets chunks of long frames while they arrive, if the transport has them."""


@final
@dataclass(frozen=True, kw_only=True)
class Sum:
    """A vector to add up over all ranks, in place, by the engine's all-reduce."""

    vector: Tensor
    """(d,)."""
    purpose: str
    """As for `Swap`."""
    write: Callable[[int, int], object] | None = None
    """`write(start, stop)` is called for each part before it is sent, and may still change it."""
    is_control: bool = False
    """Whether it belongs to no exchange of the method."""


@final
@dataclass(frozen=True, kw_only=True)
class Receive:
    """One frame to receive from whichever rank sends earliest."""

    senders: Sequence[int]
    """Ranks that may send."""
    awaited: Sequence[int]
    """Ranks to name in the error if no frame arrives."""
    purpose: str
    """As for `Swap`."""
    take: Callable[[int, Encoded], object]
    """Called with the sender and the frame."""
    landing: Landing | None = None
    """As for `Swap`."""


Request = Swap | Sum | Receive
T = TypeVar("T")
Requests = Generator[Request, float | None, T]
"""Each request is answered with the bytes per second that this rank's links were last measured at, or None."""


class RankSessions:
    """The sessions of one rank: a worker, a server, or both."""

    def __init__(
        self,
        job: Job,
        node: int,
        descend: Descend | None = None,
        *,
        pool: VectorPool | None = None,
        active: Active | None = None,
        memory: Memory | None = None,
        server_memory: Callable[[Shard], Memory] | None = None,
        participation: Participation | None = None,
    ) -> None:
        """Make the sessions of a rank.

        Args:
            job: the training job.
            node: the rank's node.
            descend: steps the server's own model, for methods that claim `server_steps`.
            pool: the worker's buffers.
            active: which parameters take part in a round; None for all.
            memory: the worker's memory, if it is part of another one.
            server_memory: makes the memory of the server of a slice, if not from the job's own slots.
            participation: which workers send something in a round; None for all.
        """
        layout = job.layout
        self.participation = participation
        """Which workers send something in a round; None for all."""
        self.job, self.node = job, node
        self.meanwhile: Callable[[], object] | None = None
        """Called in each exchange before this rank answers, while frames are under way if it can be."""
        self.worker: WorkerSession | None = None
        if node in layout.rank_at:
            self.worker = WorkerSession(
                job, layout.rank_at[node], pool, active=active, memory=memory, sparse_results=True
            )
        served = [index for index, shard in enumerate(layout.shards) if shard.node == node]
        if not layout.has_server and self.worker is not None:
            served = [0]  # every worker computes the server's answer itself
        self.servers = [
            ServerSession(job, index, descend, active=active, memory_of=server_memory, pool=pool) for index in served
        ]
        for server in self.servers:
            server.share_with(self.worker)
            if participation is not None:
                server.n_expected = participation.per_round
        self.meter = Meter() if self.worker is None else self.worker.meter
        """What this rank sends, receives and serves."""

    def resting_in(self, round_: int) -> frozenset[int]:
        """Return the nodes whose workers are not chosen in a round: they send nothing, and get the answers."""
        if self.participation is None:
            return frozenset()
        return frozenset(self.job.layout.worker_nodes[rank] for rank in self.participation.absent_in(round_))


def run_rank(
    rank: RankSessions, round_: int, inputs: Inputs | None, lr: float, phase: Callable[[str], object],
    verdict: Callable[[Abort, int], Abort] | None = None,
) -> Requests[RoundResult]:  # fmt: skip
    """Run one rank's part of a round and end it. See `run_exchanges`, and `Shards` for a `verdict`."""
    end = partial(end_round, rank, phase=phase)
    if verdict is None:
        return run_exchanges(rank, round_, inputs, lr, phase, end)

    def ended(aborted: Abort) -> RoundResult:
        aborted = verdict(aborted, round_)
        if rank.worker is not None:
            rank.worker.aborted = aborted
        return end(aborted)

    return run_exchanges(rank, round_, inputs, lr, phase, ended)


def run_exchanges(
    rank: RankSessions, round_: int, inputs: Inputs | None, lr: float, phase: Callable[[str], object],
    end: Callable[[Abort], T] = lambda aborted: aborted,  # type: ignore[assignment,return-value]
) -> Requests[T]:  # fmt: skip
    """Run one rank's part of a round up to its end, so that nothing is committed yet.

    Args:
        rank: its sessions.
        round_: number of the round.
        inputs: of its worker; None on a rank that only serves, or whose worker rests.
        lr: learning rate of this round.
        phase: called with "encode", "wait" or "decode" at the end of each such phase.
        end: what is returned of whether and why the round is aborted, on all ranks alike; by default that itself.

    Raises:
        WireError: for a frame that cannot be decoded.
        ContractError: for a frame that is not the expected one.
    """
    job, worker, aborted = rank.job, rank.worker, Abort.NO
    if worker is not None and inputs is None:
        _begin_without(worker, round_, lr)
    elif worker is not None and inputs is not None:
        worker.begin(round_, inputs, lr, overlaps=True)
    for number, planned in enumerate(job.exchanges_in(round_) if worker is None else worker.planned):
        if planned.pattern.answering is Answering.ENGINE:
            aborted = yield from _sum(rank, planned.exchange.count, f"for the all-reduce of round {round_}", phase)
        else:
            swapping = _Swapping(rank, planned, (round_, number), phase)
            link_bytes_per_s = yield swapping.uploads(lr)
            request = swapping.answers(link_bytes_per_s)
            if request is not None:
                link_bytes_per_s = yield request
            aborted = swapping.end(link_bytes_per_s)
        if aborted:
            break
    if job.layout.has_graph:  # an ABORT control frame reaches only neighbors
        aborted = yield from _agree_on_abort(rank, round_, phase)
    return end(aborted)


def _begin_without(worker: WorkerSession, round_: int, lr: float) -> None:
    """Start a round in which a worker sends nothing, but gets the answers, so that its model stays that of all.

    Where replicas are equal, what a method returns depends on the answers alone: it may run with zeros.
    """
    worker.begin(round_, Inputs(vector=worker.scratch().zero_(), parameters=worker.scratch().zero_()), lr)
    worker.rests = True


def end_round(rank: RankSessions, aborted: Abort, phase: Callable[[str], object]) -> RoundResult:
    """Commit what the round wrote to the memories, or drop it if the round is aborted."""
    job, worker, result = rank.job, rank.worker, None
    results: dict[int, Result] = {}
    supports: dict[int, tuple[Tensor, Tensor]] = {}
    if worker is not None:
        result = worker.result
        for server in rank.servers:
            if server.shown:
                keep_copies(worker.me, server.shown)
        if worker.close() or job.algorithm.is_asynchronous:
            assert result is not None
            results[worker.rank] = result
            if worker.me.support is not None:
                supports[worker.rank] = worker.me.support
    for server in rank.servers:
        server.close(not aborted, result.values if isinstance(result, InParts) else ())
    phase("decode")
    return RoundResult(aborted=aborted, results=results, supports=supports)


def abandon_round(workers: Sequence[WorkerSession], servers: Sequence[ServerSession]) -> None:
    """End a round that an exception has ended: drop what it wrote to the memories."""
    for worker in workers:
        if not worker.is_closed:
            worker.aborted = worker.aborted or Abort.ABSENCE
            worker.close()
    for server in servers:
        server.close(happened=False)


class _Swapping:
    """One exchange of frames, at one rank: it sends its own, answers those of others if it serves, and goes on."""

    def __init__(
        self, rank: RankSessions, planned: PlannedExchange, place: tuple[int, int], phase: Callable[[str], object]
    ) -> None:
        pattern = planned.pattern
        self.rank, self.planned, self.place, self.phase = rank, planned, place, phase
        self.worker, self.ends, self.answering = rank.worker, pattern.ends[rank.node], pattern.answering
        self.server = rank.servers[0] if rank.servers and pattern.answering is not Answering.NOBODY else None
        self.n_frames = self.n_bytes = self.reply_bytes = 0  # to and from others, their bytes, and those of the reply
        self.frames: dict[int, Answer] = {}  # the answers: by server, or by the neighbor's rank where nobody answers
        self.reply: Frame | None = None
        self.landing: SumWhileLanding | MeanOfCodes | None = None
        self.meanwhile: Callable[[], object] | None = None

    def uploads(self, lr: float) -> Swap:
        """Return the request for the packets of all workers that this rank sends and gets."""
        rank, worker, server, ends, (round_, number) = self.rank, self.worker, self.server, self.ends, self.place
        resting = rank.resting_in(round_) if rank.participation is not None else ()
        sends = worker is not None and rank.node not in resting
        sent, own = worker.outgoing(copies=False) if worker is not None and sends else ({}, None)
        if server is not None:
            server.open(round_, number, lr, self.planned)
            if worker is not None and sends:
                server.take(worker.rank, sent[0] if own is None else own)
        expected = [node for node in ends.uploaders if node not in resting] if resting else ends.uploaders
        self.meanwhile = None if server is None else rank.meanwhile
        arriving: Arriving | ArrivingChanges | None = None
        if server is not None:
            if self.planned.is_long and server.may_sum_while_landing():
                self.landing = server.sum_while_landing(expected, self.meanwhile)
        elif worker is not None:
            arriving, worker.me.arriving = worker.me.arriving, None
        outgoing = {}
        for leg in ends.uploads if sends else ():
            outgoing[leg.receiver] = sent[leg.shard]
        self.phase("encode")
        return Swap(
            outgoing=outgoing, expected=expected, purpose=f"for its packet of round {round_}", take=self._take_packet,
            landing=self.landing or arriving,
        )  # fmt: skip

    def _take_packet(self, node: int, data: Encoded) -> None:
        self.n_frames += 1
        self.n_bytes += data.nbytes if type(data) is Tensor else data.numel()
        sender = self.rank.job.layout.rank_at[node]
        if self.server is not None:
            self.server.take(sender, data)
        else:
            self.frames[sender] = Answer.read_from_peer(data, self.rank.job, sender, *self.place)

    def answers(self, link_bytes_per_s: float | None) -> Swap | None:
        """Return the request for the answers, or None where none travel."""
        if self.meanwhile is not None and not (self.landing is not None and self.landing.began):
            self.meanwhile()
        self.phase("wait")
        rank, server, ends, worker, name = self.rank, self.server, self.ends, self.worker, self.planned.exchange.name
        if server is not None:
            if rank.job.layout.has_server:  # otherwise all workers must decide alike
                server.view.link_bytes_per_s = link_bytes_per_s
            self.reply = server.answer()
        if self.answering is not Answering.SERVERS:
            return None
        down: dict[int, Encoded] = {}
        if self.reply is not None and (downloads := ends.downloads):
            data = encode_in_place(self.reply)
            n_bytes = self.reply_bytes = data.nbytes if type(data) is Tensor else data.numel()
            for leg in downloads:
                down[leg.receiver] = data
                self.n_frames, self.n_bytes = self.n_frames + 1, self.n_bytes + n_bytes
            rank.meter.serve(self.n_frames, self.n_bytes, name)
        if server is not None:
            self.phase("decode")
        return Swap(
            outgoing=down, expected=(*ends.answerers,), purpose=f"for its answer of round {self.place[0]}",
            take=self._take_answer,
            landing=None if worker is None or server is not None else answer_of_codes(worker, self.planned),
        )  # fmt: skip

    def _take_answer(self, node: int, data: Encoded) -> None:
        index, planned, job = self.ends.answerers[node], self.planned, self.rank.job
        frame = read_frame(data, job, "server", index, *self.place, planned.shards[index], planned=planned)
        self.frames[index] = Answer(frame=frame, n_bytes=data.nbytes if type(data) is Tensor else data.numel())

    def end(self, link_bytes_per_s: float | None) -> Abort:
        """Continue with the answers. Returns whether and why the round is aborted, as far as this rank knows."""
        worker, server, reply = self.worker, self.server, self.reply
        if self.answering is Answering.NOBODY:
            assert worker is not None, "without a server every rank works"
            worker.receive(self.frames)
            return Abort.NO  # agreed on at the end of the round
        if self.answering is Answering.SERVERS:
            self.phase("wait")
        own = None if worker is None or server is None or reply is None else server.own_answer(reply, worker)
        if self.answering is Answering.EVERY_WORKER:
            assert worker is not None, "without a server every rank works"
            assert own is not None
            worker.me.link_bytes_per_s = link_bytes_per_s
            worker.receive_own_answer(own, self.n_bytes)
            return worker.aborted
        if worker is None:
            assert server is not None
            return server.aborted
        if own is not None and reply is not None:
            n_bytes = self.reply_bytes or reply.n_bytes
            self.frames[self.planned.pattern.served_at[self.rank.node]] = Answer(frame=own, n_bytes=n_bytes)
        worker.me.link_bytes_per_s = link_bytes_per_s
        worker.receive(self.frames)
        return worker.aborted


def _sum(rank: RankSessions, count: int, purpose: str, phase: Callable[[str], object]) -> Requests[Abort]:
    """Run one exchange by the engine's all-reduce: the sum's last element says if a rank aborts the round."""
    job, worker = rank.job, rank.worker
    assert worker is not None, "with an all-reduce every rank works"
    if worker.aborted or type(worker.packet) is not Dense:
        phase("encode")
        reason = worker.aborted or Abort.NON_FINITE
        total = torch.full((count,), reason.mark, dtype=job.dtype, device=job.device)
        write = None
    else:
        total = worker.packet.values
        write = _sharing(worker, total, phase)
    yield Sum(vector=total, purpose=purpose, write=write)
    phase("wait")
    worker.receive_sum(total, ring_bytes(count, job.layout.n_workers, total.itemsize), Abort.of_sum(float(total[-1])))
    return worker.aborted


def _sharing(worker: WorkerSession, values: Tensor, phase: Callable[[str], object]) -> Callable[[int, int], None]:
    """Return a function that writes this worker's share into parts of `values` (d,), in order.

    If the sum may not be finite, it marks the last element, so that all ranks need to check only that one.
    """
    aborted = Abort.NO

    def write(start: int, stop: int) -> None:
        nonlocal aborted
        if start:
            phase("wait")  # until here the part before was sent
        aborted = worker.write_share(start, stop) or aborted
        if aborted and stop == values.numel():
            values[-1] = aborted.mark
        phase("encode")

    return write


def _agree_on_abort(rank: RankSessions, round_: int, phase: Callable[[str], object]) -> Requests[Abort]:
    worker = rank.worker
    assert worker is not None, "without a server every rank works"
    flag = torch.tensor([worker.aborted.mark])
    phase("decode")
    yield Sum(vector=flag, purpose=f"to end round {round_}", is_control=True)
    phase("wait")
    worker.aborted = Abort.of_sum(float(flag))
    return worker.aborted
