"""The server's part of a round, between algorithm and bytes; the worker's is in `worker.py`."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool, new_vector
from laconic.contract import Inbox, Memory, Scratch, Server, by_parameter, read_saved, storage_of
from laconic.errors import ContractError, NonFiniteError
from laconic.protocol.abort import Abort
from laconic.protocol.frame_sizes import as_received
from laconic.protocol.frames import check_own, read_frame
from laconic.protocol.job import Job, PlannedExchange
from laconic.protocol.landing import EachWhileLanding, SumWhileLanding, adding_to
from laconic.protocol.landing_codes import MeanOfCodes
from laconic.protocol.layout import Shard
from laconic.protocol.magnitudes import Magnitudes, within
from laconic.protocol.one_pass import OnePassSteps, made_step
from laconic.protocol.own_model import Descend, OwnModel, keep_copies
from laconic.protocol.round_inputs import Active
from laconic.protocol.worker import WorkerSession
from laconic.telemetry.votes import VoteCounter
from laconic.torch_compat import version_of
from laconic.wire import LONG_BYTES, Dense, Encoded, Frame, Header, Packet, QuantizedValues


class ServerSession:
    """The server, or one of several with a slice each."""

    def __init__(
        self,
        job: Job,
        index: int,
        descend: Descend | None = None,
        *,
        active: Active | None = None,
        memory_of: Callable[[Shard], Memory] | None = None,
        unsplit: bool = False,
        pool: VectorPool | None = None,
    ) -> None:
        """Set up the server.

        Args:
            job: the training job.
            index: which of the layout's servers this is. In a layout without servers, every worker has a session of
                index 0 and computes the answers itself.
            descend: steps the server's own model, for methods that claim `server_steps`.
            active: which parameters take part in a round; None for all.
            memory_of: makes the memory of a slice, if not from the job's own slots.
            unsplit: serve the full vector, whatever the layout.
            pool: buffers of this rank's worker, which are shared where they fit.
        """
        shard = (
            job.layout.shards[index] if job.layout.shards and not unsplit else Shard(0, job.spec.offset, job.spec.stop)
        )
        self.job = job
        self.index = index
        self.aborted = Abort.NO
        self.refused: Packet | None = None  # the last answer, if inf or NaN in it aborted the round
        self.shard = self._shard = shard  # `_shard` is the part that this exchange is about
        self._frames: dict[int, Frame] = {}  # of this exchange, by worker
        self._is_open = False  # whether an exchange of this round has begun
        self._planned: PlannedExchange | None = None  # that exchange
        self._borrowed: dict[int, tuple[Tensor, int]] = {}  # by storage: values of this rank's worker, their version
        fits = pool is not None and pool.holds(shard.count, job.dtype)
        self.scratch = Scratch(pool if pool is not None and fits else VectorPool(shard.count, job.dtype))
        self._active = active
        self.view = Server(
            rank=index, n_workers=job.layout.n_workers, spec=job.spec.part(shard.offset - job.spec.offset, shard.count),
            seed=job.seed, scratch=self.scratch,
            memory=Memory(job.server_slots(shard)) if memory_of is None else memory_of(shard),
        )  # fmt: skip
        self.n_expected = job.layout.n_workers
        """The number of workers that take part in a round, by which a method divides what they send."""
        self._shares = False  # vectors with this rank's own worker
        self.shown: set[int] = set()
        """The storages of answers of this round that this rank's own worker reads, and may not keep."""
        self.landed: SumWhileLanding | MeanOfCodes | None = None
        """The mean of this exchange's frames, if it was made while they came."""
        self._model = None if descend is None else OwnModel(descend)
        if self._model is not None:
            self.view.descend = self._model.descend
        self.magnitudes = Magnitudes(job.algorithm, self.view.memory)
        self.steps: OnePassSteps | None = None
        """Takes steps of the server's own model in one pass over the packets; None for a mean and a step."""
        self._stepped: SumWhileLanding | None = None  # the new parameters, if they were made while packets came
        self._added: SumWhileLanding | None = None  # the sum of all, if it was
        self.view.descend_in_one_pass = self._descend_in_one_pass
        self.vote_counter: VoteCounter | None = None
        """Gets the agreement of votes in the rounds in which it is due; None while nobody asks."""

    def share_with(self, worker: WorkerSession | None) -> None:
        """Let those memories whose slots say so have vectors of this rank's own worker, if it has one."""
        self._shares = any(slot.stays for slot in self.view.memory.slots.table.values())
        if self._shares and worker is not None:
            worker.scratch.shared_with = (*worker.scratch.shared_with, self.view.memory)

    def open(self, round_: int, exchange: int, lr: float, planned: PlannedExchange | None = None) -> None:
        """Begin an exchange: `take` each frame, then `answer`.

        Args:
            round_: number of the round.
            exchange: number of the exchange in this round.
            lr: learning rate of this round.
            planned: the exchange, if the caller has looked it up.
        """
        self.view.round, self.view.exchange, self.view.lr = round_, exchange, lr
        self._is_open = True
        if exchange == 0 and self.magnitudes.are_watched:
            self.magnitudes.begin(round_, lr)
        if planned is None:
            planned = self.job.exchanges_in(round_)[exchange]
        self._planned = planned
        self._shard = self.shard if planned.is_full else planned.shards[0]
        self._frames, self._borrowed, self.landed, self._stepped, self._added = {}, {}, None, None, None

    def take(self, rank: int, data: Encoded | Frame) -> None:
        """Take the frame of worker `rank`. A worker on the server's own node passes a `Frame`.

        Raises:
            WireError: if it cannot be decoded.
            ContractError: if it is not the expected one.
        """
        view = self.view
        if type(data) is not Frame:
            self._frames[rank] = read_frame(
                data, self.job, "worker", rank, view.round, view.exchange, self._shard, planned=self._planned  # type: ignore[arg-type]
            )  # fmt: skip
            return
        self._frames[rank], packet = data, data.packet  # which was checked when it was made
        if type(packet) is Dense and packet.values.is_cpu:  # it stays where it is
            self._borrowed[storage_of(packet.values)] = packet.values, version_of(packet.values)

    def sum_while_landing(
        self, nodes: Sequence[int], meanwhile: Callable[[], object] | None = None
    ) -> SumWhileLanding | MeanOfCodes | None:
        """Begin to make the answer's mean while frames come, if `may_sum_while_landing`; None where it cannot be.

        Args:
            nodes: those of the workers whose frames come.
            meanwhile: see `SumWhileLanding`.
        """
        senders = {node: self.job.layout.rank_at[node] for node in nodes}
        codes = {rank: frame.packet for rank, frame in self._frames.items() if type(frame.packet) is QuantizedValues}
        if codes and senders and len(codes) == len(self._frames):
            out = self._empty(self._shard.count)
            self.landed = MeanOfCodes(codes, senders, out, self.job.spec.stop, meanwhile)
            return self.landed
        own = {
            rank: frame.packet.values
            for rank, frame in self._frames.items()
            if type(frame.packet) is Dense
            and frame.packet.values.dtype is self.job.dtype
            and frame.packet.values.is_cpu
        }
        if not senders or len(own) < len(self._frames):
            return None
        n = self.job.layout.n_workers
        divisor = self.job.algorithm.in_round(self.view.round).sum_divisor(n)
        if divisor is not None:
            if len(own) + len(senders) < n:
                return None
            total = self._empty(self._shard.count)
            self._added = SumWhileLanding(own, senders, total, meanwhile, write=adding_to(total, divisor))
            return self._added
        begun = None if self.steps is None else self.steps.begin()
        if begun is not None:
            vector, write = begun
            self._stepped = SumWhileLanding(own, senders, vector, write=write)
            return self._stepped
        if self._may_step_in_one_pass():
            return None
        self.landed = SumWhileLanding(own, senders, self._empty(self._shard.count), meanwhile)
        return self.landed

    def each_while_landing(self) -> EachWhileLanding | None:
        """Return what makes the sum of each frame that is served alone while it comes, as `sum_while_landing`."""
        if not self.may_sum_while_landing():
            return None
        return EachWhileLanding(
            {node: rank for rank, node in enumerate(self.job.layout.worker_nodes)}, self._sum_or_step_of
        )

    def _sum_or_step_of(self, sender: Mapping[int, int]) -> SumWhileLanding | None:
        """Begin a step along one worker's frame, else its sum; None where that will not be read."""
        begun = None if self.steps is None else self.steps.begin()
        if begun is not None:
            return SumWhileLanding({}, sender, begun[0], write=begun[1])
        return None if self._may_step_in_one_pass() else SumWhileLanding({}, sender, self._empty(self.shard.count))

    def take_landed(self, landed: SumWhileLanding | None) -> None:
        """Take what was made of the one frame of this exchange while it came, if that still holds."""
        if landed is not None and landed.makes_mean:
            self.landed = landed
        elif self.steps is not None and self.steps.is_begun():
            self._stepped = landed

    def may_sum_while_landing(self) -> bool:
        """Return whether the method reads nothing but the mean of the frames of this exchange, and they are long.

        Or their sum, where there is one of each worker.
        """
        if self._shard.count * self.job.dtype.itemsize < LONG_BYTES:
            return False
        now = self.job.algorithm.in_round(self.view.round)
        return now.serves_mean or now.sum_divisor(self.job.layout.n_workers) is not None

    def _may_step_in_one_pass(self) -> bool:
        return self.steps is not None and self.steps.are_taken()

    def _descend_in_one_pass(self, inbox: Inbox) -> Dense | None:
        """See `Server.descend_mean`."""
        if self.steps is None:
            return None
        made = made_step(self.steps, self._stepped, inbox, self.job.dtype)
        return None if made is None else Dense(values=made[0], offset=self.view.offset).measured(*made[1:])

    def answer(self) -> Frame:
        """Return the one answer that goes to all workers."""
        frames, self._frames = self._frames, {}
        packet = self.serve(frames)
        header = Header(
            role="server", rank=self.index, round=self.view.round, exchange=self.view.exchange,
            set_differs=self.aborted is Abort.SET_DIFFERS,
        )  # fmt: skip
        if packet is None or self.aborted:
            return Frame.carrying(header, packet, aborted=bool(self.aborted))
        return Frame(header=header, packet=packet)

    def serve(self, frames: Mapping[int, Frame]) -> Packet | None:
        """Return the answer to the workers' frames, by worker, in the exchange that `open` began.

        If one of the frames or the answer is not finite, it returns None and sets `aborted`.
        """
        packets: dict[int, Packet] = {}
        skipped: set[int] = set()
        aborted = Abort.NO
        for rank, frame in frames.items():
            if frame.packet is not None:
                packets[rank] = frame.packet
            else:
                aborted = max(aborted, Abort.of(frame))
                skipped.add(rank)
        return self.serve_packets(packets, frozenset(skipped), aborted)

    def serve_packets(self, packets: Mapping[int, Packet], skipped: frozenset[int], aborted: Abort) -> Packet | None:
        """Return the same, given what the frames carry, the ranks that skip, and why some of them abort the round."""
        view, shard = self.view, self._shard
        self.aborted = aborted
        if aborted:
            self.refused = None
            return None
        inbox = Inbox(
            packets, self.n_expected, partial(self._empty, shard.count), skipped,
            vote_buffer=(lambda: self.scratch(torch.int8)) if shard.count == view.count else None,
            made_mean=None if self.landed is None else self.landed.mean_of,
            made_sum=None if self._added is None else self._added.made_of,
        )  # fmt: skip
        if self.magnitudes.are_watched:
            self.magnitudes.saw(packets.values())
        assert self._planned is not None, "an exchange is open"
        algorithm = self._planned.algorithm
        try:
            packet = algorithm.serve(view, inbox) if self._model is None else self._model.serve(algorithm, view, inbox)
            if self._borrowed:
                packet = self._owned(packet)
        except NonFiniteError:
            self.aborted, self.refused = Abort.NON_FINITE, None
            return None
        if self.vote_counter is not None and self.vote_counter.counts_in(view.round):
            self.vote_counter.add(algorithm.vote_agreement(view, inbox))
        check_own(packet, self.job, self._planned, "server", self.index, view.round, (shard.offset, shard.count))
        is_finite = packet is None or packet.finite
        if self.magnitudes.are_watched and packet is not None:
            self.magnitudes.saw((packet,))
        if self.magnitudes.are_large:
            is_finite = is_finite and self.magnitudes.answer_holds(packet) and self.magnitudes.may_be_written()
        elif self.magnitudes.largest < math.inf:
            is_finite = self.magnitudes.answer_holds(packet)
        self.aborted = Abort.NO if is_finite else Abort.NON_FINITE
        self.refused = packet if self.aborted else None
        return None if self.aborted else packet

    def _owned(self, packet: Packet | None) -> Packet | None:
        """Return an answer, and leave memories, without anything that belongs to this rank's own worker.

        Raises:
            ContractError: The server has written into what that worker sent, which may be its gradient.
        """
        if any(version_of(values) != version for values, version in self._borrowed.values()):
            raise ContractError(
                f"{self.job.algorithm.name}: serve changes a packet's values in place, which are still its worker's; "
                "write to inbox.sum(), inbox.mean() or packet.dense().clone(): vectors of your own"
            )
        keep_copies(self.view, self._borrowed, may_stay=self._shares)
        is_borrowed = isinstance(packet, Dense) and storage_of(packet.values) in self._borrowed
        return packet.as_read() if is_borrowed and packet is not None else packet

    def own_answer(self, answer: Frame, worker: WorkerSession) -> Frame:
        """Return an answer as this rank's own worker decodes it. Dense values go over to its scratch, if it may."""
        packet, scratch = answer.packet, worker.scratch
        worker.take_made = None
        if type(packet) is QuantizedValues and packet.late_codes is not None:
            received, late = as_received(answer, self.job.spec.stop), packet.late_codes
            if late.replaces and packet.count == self.view.count and self.scratch.hand_over(late.values, scratch):
                worker.take_made = late.take
            return received
        if type(packet) is not Dense or not packet.values.is_cpu:
            return as_received(answer, self.job.spec.stop)
        values, memory = packet.values, self.view.memory
        held = {storage_of(value) for value in (*memory.committed.values(), *memory.written.values())}
        if storage_of(values) not in held and self.scratch.hand_over(values, scratch):
            return answer
        if self._planned is not None and self._planned.is_split:  # put into a vector of d
            self.shown.add(storage_of(values))
            return answer
        return as_received(answer, self.job.spec.stop)

    def would_refuse(self, part: Packet, shard: Shard) -> bool:
        """Return whether a server of this slice alone would abort the round; call it where `serve` has `refused`."""
        if not self.magnitudes.answer_holds(part):
            return True
        if not self.magnitudes.are_large:
            return False
        memory, start = self.view.memory, shard.offset - self.shard.offset
        written = [
            value[start : start + shard.count] if memory.slots.is_vector(name) else value
            for name, value in memory.written.items()
        ]
        return not within(written, self.magnitudes.safe)

    def _empty(self, count: int) -> Tensor:
        """Return a vector (count,) that is valid in this round, or for as long as the server's memory holds it."""
        lives_on = self.job.algorithm.is_asynchronous  # there an answer is sent in later rounds, too
        if count != self.view.count or lives_on:
            return new_vector(count, self.job.dtype)
        return self.scratch()

    def close(self, happened: bool, left: Sequence[Tensor] = ()) -> None:
        """End the round: commit the memory, or drop what was staged if the round was aborted.

        It is dropped at the learning rate 0, too: see `WorkerSession.close`.

        Args:
            happened: whether the round had an effect.
            left: answers of this rank's servers that its worker's result was left in.
        """
        if not self._is_open:  # as where an all-reduce gives the answer
            return
        self._is_open = False
        if self.shown:
            self.shown.clear()
        if happened and (self.view.lr or not self.job.algorithm.replicas_equal):
            if self._active is not None and not self._active.all_active:
                offset, count = self.shard.offset, self.shard.count
                slices = [
                    (max(0, start - offset), min(count, stop - offset)) for start, stop in self._active.inactive()
                ]
                self.view.memory.revert([(start, stop) for start, stop in slices if start < stop])
            self.view.memory.commit()
            if self.magnitudes.are_large:
                self.magnitudes.end(self.view.round)
        else:
            self.view.memory.drop()
        self.scratch.end_round(self.view.memory.committed.values(), left)

    def saved(self) -> dict[str, Any]:
        """Return the state between two rounds."""
        memory = self.view.memory
        return {
            "memory": by_parameter(memory.saved(), memory.slots), "link_bytes_per_s": self.view.link_bytes_per_s,
            "slice": [self.shard.offset, self.shard.stop],
        }  # fmt: skip

    def check(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError if saved states of servers do not have what this one needs, or do not fit its slots."""
        slots = self.view.memory.slots
        slots.check_saved(read_saved([server["memory"] for server in saved], slots))

    def restore(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Continue from the saved states of servers, whose slices together must cover this one's."""
        memory = self.view.memory
        memory.restore(read_saved([server["memory"] for server in saved], memory.slots))
        self.magnitudes.restart()
        own = [self.shard.offset, self.shard.stop]
        links = [server["link_bytes_per_s"] for server in saved if list(server["slice"]) == own]
        self.view.link_bytes_per_s = links[0] if links else None
