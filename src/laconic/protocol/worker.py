"""The worker's part of a round, between algorithm and bytes; the server's is in `server.py`.

Both drivers run these sessions, which do not know how bytes travel.

A round is: begin -> (outgoing -> answer -> receive), repeated as often as the algorithm yields -> commit, or drop if
some rank aborted the round (`abort.py`). Nothing enters a memory before the commit.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Algorithm, InParts, Memory, Reply, Result, Scratch, Step, Worker, by_parameter, read_saved
from laconic.errors import ContractError, NonFiniteError
from laconic.protocol.abort import Abort
from laconic.protocol.frame_sizes import as_received, control_sizes, frame_sizes, packet_as_received
from laconic.protocol.frames import Answer, check_own
from laconic.protocol.input_reader import InputReader
from laconic.protocol.job import Job, PlannedExchange
from laconic.protocol.legs import Answering
from laconic.protocol.magnitudes import Magnitudes
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import Leaving
from laconic.protocol.shared_reply import SharedReply
from laconic.telemetry.meter import UP_AND_DOWN, FrameSizes, Meter
from laconic.wire import Dense, Encoded, Frame, Header, Packet, Sparse, encode, encode_in_place, encode_split


class WorkerSession:
    """One worker: its generator, its memory and scratch, its meter."""

    def __init__(
        self,
        job: Job,
        rank: int,
        pool: VectorPool | None = None,
        *,
        active: Active | None = None,
        memory: Memory | None = None,
        sparse_results: bool = False,
    ) -> None:
        """Set up worker `rank`.

        Args:
            job: the training job.
            rank: the worker's rank.
            pool: buffers that the workers of this process share.
            active: which parameters take part in a round; None for all.
            memory: the memory, if it is part of another one.
            sparse_results: whether a sparse result stays sparse.
        """
        self.job = job
        self.rank = rank
        self.node = job.layout.worker_nodes[rank]
        self.meter = Meter()
        self.scratch = Scratch(pool or VectorPool(job.d, job.dtype, job.device))
        self.me = Worker(
            rank=rank, n_workers=job.layout.n_workers, spec=job.spec, seed=job.seed,
            scratch=self.scratch,
            memory=Memory(job.worker_slots, job.device) if memory is None else memory,
        )  # fmt: skip
        self.packet: Packet | None = None
        self.payload_device: torch.device | None = None  # the device payloads are sent from, if not the host
        self.aborted = Abort.NO
        self.result: Result | None = None
        self.exchange = self._n_exchanges = 0
        self.is_closed = True
        """Whether the round has ended for this worker."""
        self.is_cause = False
        """Whether this worker's own numbers abort the round."""
        self.rests = False
        """Whether this worker sends nothing in this round, and remembers nothing of it."""
        self.planned: tuple[PlannedExchange, ...] = ()
        """The exchanges of this round."""
        self.fits: Callable[[Result, Tensor], bool] | None = None
        """Returns whether a result can be applied to the parameters (d,), where they have a shorter type than (d,)."""
        self.leaving = Leaving()  # of nothing
        self._step: Step | None = None
        self._active, self._waits_at_lr_0, self._sparse_results = active, job.algorithm.replicas_equal, sparse_results
        self._shape, self._home = torch.Size((job.d,)), (job.dtype, job.device)
        self.take_made: Callable[[Packet], Tensor | None] | None = None  # of the next answer, see `Reply`
        self._has_own_formula = type(job.algorithm).paper_bits_of is not Algorithm.paper_bits_of
        self._reader = InputReader(job.algorithm, self.me)
        self.magnitudes = Magnitudes(job.algorithm, self.me.memory)
        if self.node != 0:
            self.count_parameters()  # the initial ones, which node 0 sends to every other worker

    def count_parameters(self) -> None:
        """Count one vector of parameters that is sent to this worker."""
        values = Dense(values=self.job.zeros(self.job.d))
        self.meter.collective("setup", values.payload_bits // 8, values.payload_bits, values.paper_bits)

    def begin(self, round_: int, inputs: Inputs, lr: float, *, overlaps: bool = False) -> None:
        """Start a round and run the generator to its initial packet. Non-finite input aborts the round.

        Args:
            round_: number of the round.
            inputs: what this worker brings to the round.
            lr: learning rate of this round.
            overlaps: whether the caller calls `write_share` while the gradient that `inputs.vector` reads still exists.
        """
        me = self.me
        self.planned, self.exchange = self.job.exchanges_in(round_), 0
        self._n_exchanges = len(self.planned)
        me.round, me.lr, me.support, self.is_closed, self.rests = round_, lr, None, False, False
        self.packet, self.result, self._step = None, None, None
        if self.magnitudes.are_watched:
            self.magnitudes.begin(round_, lr)
        self.aborted, self.is_cause = inputs.abort, inputs.abort is Abort.NON_FINITE
        if self.aborted:
            return
        if not isinstance(inputs.vector, Tensor):
            for scratch in (self.scratch, *self.leaving.lenders):
                scratch.reclaim(inputs.vector.reads)  # earlier results, unless the gradient is in one of them
        planned = self.planned[0] if self.planned else None
        self.aborted = self._reader.begin(
            inputs, sum_is_checked=planned is not None and planned.sum_is_checked,
            as_given=planned is not None and planned.exchange.as_given, overlaps=overlaps,
            limit=None if planned is None or not self.magnitudes.are_watched else self.magnitudes.limit_in(planned),
            bounds=planned.bounds_of_values(self.rank) if overlaps and planned is not None
            and planned.pattern.ends[self.node].uploads else (),
        )  # fmt: skip
        if self.aborted:
            self._abort()
        else:
            algorithm = self.job.algorithm.in_round(round_) if planned is None else planned.algorithm
            self._step = algorithm.work(me)
            self._advance(None)
        me.gradient_tensors = ()  # releases them

    def write_share(self, start: int, stop: int) -> Abort:
        """Divide the values start .. stop-1 of the all-reduce by the number of workers. Call once for each value.

        Returns:
            Whether the sum will not be finite as far as this worker knows; see `kernels.divide`.
        """
        assert type(self.packet) is Dense
        aborted = self._reader.write_share(self.packet.values, start, stop)
        self.is_cause |= bool(aborted)
        return aborted

    def _advance(self, reply: Reply | None) -> None:
        """Run the generator to its next packet, or to its result after the last exchange."""
        assert self._step is not None
        name, expected = self.job.algorithm.name, self._n_exchanges
        try:
            packet = next(self._step) if reply is None else self._step.send(reply)
        except StopIteration as stop:
            if self.exchange != expected:
                raise ContractError(
                    f"{name}: worker {self.rank} ended the round after {self.exchange} of {expected} exchanges; "
                    "every worker must yield equally often (yield None to send nothing)"
                ) from None
            self._step, self.result = None, stop.value
            if type(self.result) is not Tensor or self.result.shape != self._shape:
                self._take_other_result(stop.value)
            if (self.magnitudes.are_large and not self.magnitudes.is_finite(self.result)) or (
                self.fits is not None and not self.fits(self.result, self.me.parameters)
            ):
                self._abort()
            return
        except NonFiniteError:
            self._abort()
            return
        if self.exchange == expected:
            raise ContractError(f"{name}: worker {self.rank} yields more often than its {expected} exchanges")
        planned, exchange, me = self.planned[self.exchange], self.planned[self.exchange].exchange, self.me
        check_own(packet, self.job, planned, "worker", self.rank, me.round, (exchange.offset, exchange.count))
        self.packet = packet
        is_finite = packet is None or planned.sum_is_checked or packet.finite
        if self.magnitudes.are_watched:
            read = me.gradient if me.gradient.shape == self._shape else None
            is_finite = is_finite and self.magnitudes.may_send(packet, read, exceeds=self._reader.exceeds)
        if not is_finite:
            self._abort()

    def _abort(self) -> None:
        self.aborted, self.is_cause = Abort.NON_FINITE, True

    def _take_other_result(self, result: object) -> None:
        """Take a result that is not a plain vector (d,). Raises ContractError if it stands for none."""
        if isinstance(result, Sparse) and result.count == self.job.d and self.job.algorithm.consumes == "change":
            if not self._sparse_results:
                self.result = vector = self.scratch()
                result.put_into(vector)
            return
        if not isinstance(result, InParts) and (not isinstance(result, Tensor) or result.shape != self._shape):
            raise ContractError(
                f"{self.job.algorithm.name}: work must return a vector of {self.job.d} elements; "
                f"worker {self.rank} returned {result!r:.80}"
            )

    def outgoing(self, *, copies: bool = True) -> tuple[dict[int, Encoded], Frame | None]:
        """Return this exchange's frames, counted: ABORT control frames if the round is aborted.

        Args:
            copies: whether long values are copied, and the frame for the server on this node is encoded, too.

        Returns:
            The encoded frames by shard, and without `copies` that frame as the server on this node would decode it.
        """
        planned = self.planned[self.exchange]
        pattern, header, packet = planned.pattern, self.header(), self.packet
        served, sent, own = pattern.served_at.get(self.node), dict[int, Encoded](), None
        carries, aborted = packet is not None and not self.aborted, bool(self.aborted)
        for shard, n_copies in enumerate(pattern.ends[self.node].n_copies):
            local = shard == served
            if not (n_copies or local or pattern.copies_count_once):
                continue  # no neighbor gets it
            if carries and planned.is_split:
                part = planned.shards[shard]
                packet = self.packet.part(part.offset, part.stop)  # type: ignore[union-attr]
            frame = Frame(header=header, packet=packet) if carries else Frame.carrying(header, packet, aborted=aborted)
            if not copies and (local or pattern.copies_count_once):  # then this rank is one of those who serve
                own = as_received(frame, self.job.spec.stop, in_place=True)
            if local and not copies:
                n_bytes = frame.n_bytes
            else:
                device, make = self.payload_device, encode if copies else encode_in_place
                data = sent[shard] = make(frame) if device is None else encode_split(frame, device)
                n_bytes = data.nbytes if type(data) is Tensor else data.numel()
            if pattern.copies_count_once:
                self._count_once("up", frame, n_bytes * n_copies)
                continue
            for number in range(n_copies or 1):
                self.count("up", frame, n_bytes, local=local, lead=shard == number == 0)
        return sent, own

    def header(self) -> Header:
        """Return the header of this exchange's frames, which are all alike."""
        differs = self.aborted is Abort.SET_DIFFERS
        return Header(role="worker", rank=self.rank, round=self.me.round, exchange=self.exchange, set_differs=differs)

    def outgoing_unsplit(self) -> tuple[Packet | None, FrameSizes]:
        """Return the packet as its server decodes it, None for a control frame, and the sizes of its frames."""
        planned, packet = self.planned[self.exchange], self.packet
        if packet is None or self.aborted:
            packet, sizes = None, control_sizes(len(planned.bounds) - 1, skips=not self.aborted)
        else:
            packet = packet_as_received(packet, self.job.spec.stop)
            sizes = frame_sizes(packet, planned.bounds, self.job.algorithm, "up")
        if (pattern := planned.pattern).copies_count_once:
            frame = Frame.carrying(self.header(), packet, aborted=bool(self.aborted))
            self._count_once("up", frame, sizes.total_bytes * pattern.ends[self.node].n_copies[0])
        else:
            self.meter.frames("up", sizes, exchange=planned.exchange.name, local=pattern.served_at.get(self.node))
        return packet, sizes

    def receive_unsplit(self, reply: SharedReply, sizes: FrameSizes, aborted: Abort) -> None:
        """Continue with an answer that all workers share, as `receive`; it is counted as frames of `sizes`."""
        planned = self.planned[self.exchange]
        self.meter.frames("down", sizes, exchange=planned.exchange.name, local=planned.pattern.served_at.get(self.node))
        self.aborted = max(self.aborted, aborted)
        self._resume(reply.parts, reply=reply)

    def count_copies(self, n_bytes: Mapping[int, int]) -> None:
        """Count frames of these bytes, by shard, that are sent twice: not their payload. Call before `receive`."""
        planned = self.planned[self.exchange]
        for leg in planned.pattern.ends[self.node].uploads:
            self.meter.collective("up", n_bytes[leg.shard], 0, 0.0, planned.exchange.name)

    def count(
        self, direction: Literal["up", "down"], frame: Frame, n_bytes: int, *, local: bool = False, lead: bool = True
    ) -> None:
        """Count a frame."""
        packet, algorithm, paper_bits = frame.packet, self.job.algorithm, 0.0
        if packet is not None:
            paper_bits = algorithm.paper_bits_of(direction, packet) if self._has_own_formula else packet.paper_bits
        self.meter.frame(
            direction, frame, n_bytes, paper_bits=paper_bits, exchange=self.planned[self.exchange].exchange.name,
            local=local, flag_bit=algorithm.skips, lead=lead,
        )  # fmt: skip

    def _count_once(self, direction: Literal["up", "down"], frame: Frame, n_bytes: int) -> None:
        """Count a frame that goes to many or comes from many as one of `n_bytes`."""
        packet, paper_bits = frame.packet, 0.0
        if packet is not None:
            is_own = self._has_own_formula
            paper_bits = self.job.algorithm.paper_bits_of(direction, packet) if is_own else packet.paper_bits
        skips, exchange = packet is None and frame.skipped, self.planned[self.exchange].exchange.name
        self.meter.collective(direction, n_bytes, frame.payload_bits, paper_bits, exchange, skips=skips)

    def receive(self, answers: Mapping[int, Answer], *, delivered: bool = True) -> None:
        """Continue with the answers to the next packet or the result.

        Args:
            answers: by the number of the server, or by the rank of the neighbor if nobody answers.
            delivered: whether the servers got this worker's own frames.
        """
        pattern = self.planned[self.exchange].pattern
        served, from_peers = pattern.served_at.get(self.node), pattern.answering is Answering.NOBODY
        packets, parts = dict[int, Packet](), list[Packet]()
        for number in sorted(answers):
            frame = answers[number].frame
            self.count("down", frame, answers[number].n_bytes, local=number == served, lead=from_peers or number == 0)
            if frame.packet is not None:
                packets[number] = frame.packet
                parts += (frame.packet,)
            else:
                self.aborted = max(self.aborted, Abort.of(frame))
        self._resume(() if from_peers else (*parts,), delivered=delivered, packets=packets if from_peers else None)

    def receive_own_answer(self, frame: Frame, n_bytes: int, reply: SharedReply | None = None) -> None:
        """Continue with the answer this rank computed from all workers' frames; others sent `n_bytes` of them."""
        self._count_once("down", frame, n_bytes)
        self.aborted = max(self.aborted, Abort.of(frame))
        self._resume(() if frame.packet is None else (frame.packet,), reply=reply)

    def receive_sum(self, mean: Tensor, bytes_each_direction: int, aborted: Abort) -> None:
        """Continue with the result of the engine's all-reduce.

        Args:
            mean: the mean of the workers' vectors.
            bytes_each_direction: what this rank sent in each phase (reduce-scatter, all-gather).
            aborted: whether the sum shows that some worker aborts the round.
        """
        exchange = self.planned[self.exchange].exchange
        packet = Dense(values=mean, offset=exchange.offset)
        payload_bits, paper_bits = packet.payload_bits, packet.paper_bits
        for direction in UP_AND_DOWN:
            if self._has_own_formula:
                paper_bits = self.job.algorithm.paper_bits_of(direction, packet)
            self.meter.collective(direction, bytes_each_direction, payload_bits, paper_bits, exchange.name)
        if aborted > self.aborted:
            self.aborted = aborted
        self._resume((packet,))

    def _resume(
        self, parts: tuple[Packet, ...], *, delivered: bool = True, packets: Mapping[int, Packet] | None = None,
        reply: Reply | None = None,
    ) -> None:  # fmt: skip
        """End an exchange with its answer, of which a reply may be made already, and continue if the round does."""
        planned, answers = self.planned[self.exchange], parts if packets is None else packets.values()
        self.exchange += 1
        if self.aborted:
            if planned.pattern.one_by_one:  # it continues with the newest parameters
                self.result = next(iter(answers)).dense()
            return
        if self.magnitudes.are_watched:
            self.magnitudes.saw(answers)
        if reply is None:
            count, offset = planned.exchange.count, planned.exchange.offset
            empty = self.scratch if planned.is_full else partial(self.job.zeros, count)
            reply = Reply(
                delivered=delivered, parts=parts, count=count, offset=offset, empty=empty, packets=packets or {},
                home=self._home, take_made=self.take_made,
                leaves="nothing" if self.magnitudes.are_large else self.leaving.kind,
            )  # fmt: skip
        self._advance(reply)

    def close(self) -> bool:
        """End the round: commit the memory and return True, or drop what was staged and return False.

        At the learning rate 0 the round has a result, but nothing is committed where all workers share one model.
        """
        if self._step is not None:
            self._step.close()
            self._step = None
        self.packet, self.is_closed = None, True
        self._reader.unread = None  # it holds a gradient
        memory = self.me.memory
        if self.aborted:
            memory.drop()
            self.scratch.end_round(memory.committed.values())
            return False
        if self._active is not None and not self._active.all_active:
            offset = self.job.spec.offset
            memory.revert([(start - offset, stop - offset) for start, stop in self._active.inactive()])
        waits = self._waits_at_lr_0 and not self.me.lr  # what was sent is not applied, so no memory may leave it out
        if waits or self.rests:
            memory.drop()
        else:
            memory.commit()
            if self.magnitudes.are_large:
                self.magnitudes.end(self.me.round)
        self.scratch.end_round(memory.committed.values(), (self.result,) if type(self.result) is Tensor else ())
        return True

    def saved(self) -> dict[str, Any]:
        """Return the state between two rounds."""
        return {
            "memory": by_parameter(self.me.memory.saved(), self.job.worker_slots), "meter": self.meter.saved(),
            "link_bytes_per_s": self.me.link_bytes_per_s,
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if the memories of a saved state do not fit the method's slots."""
        self.job.worker_slots.check_saved(read_saved([saved["memory"]], self.job.worker_slots))

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state. A worker that is new, whose meter is None, keeps its own counts."""
        self.me.memory.restore(read_saved([saved["memory"]], self.job.worker_slots))
        self.magnitudes.restart()
        if saved["meter"] is not None:
            self.meter.restore(saved["meter"])
        self.me.link_bytes_per_s = saved["link_bytes_per_s"]
