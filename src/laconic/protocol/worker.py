"""The worker's part of a round, between algorithm and bytes; the server's is in `server.py`.

Both drivers run these sessions, which do not know how bytes travel.

A round is: begin -> (outgoing -> answer -> receive), repeated as often as the algorithm yields -> commit, or drop if
some rank aborted the round (`abort.py`). Nothing enters a memory before the commit.
"""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Exchange, Memory, Reply, Scratch, Step, Worker, by_parameter, read_saved
from laconic.errors import ContractError, NonFiniteError
from laconic.protocol.abort import Abort
from laconic.protocol.frame_sizes import as_received, frame_sizes
from laconic.protocol.frames import Answer
from laconic.protocol.input_reader import InputReader
from laconic.protocol.job import Job
from laconic.protocol.layout import Shard
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.shared_reply import Shared, SharedReply
from laconic.telemetry.meter import FrameSizes, Meter
from laconic.wire import Dense, Encoded, Frame, Header, Packet, Sparse, encode, encode_split


class WorkerSession:
    """One worker: its generator, its memory and scratch, its meter."""

    def __init__(
        self,
        job: Job,
        rank: int,
        pool: VectorPool | None = None,
        *,
        active: Active | None = None,
        sparse_results: bool = False,
    ) -> None:
        """Set up worker `rank`.

        Args:
            job: the training job.
            rank: the worker's rank.
            pool: buffers that the workers of this process share.
            active: which parameters take part in a round; None for all.
            sparse_results: whether a sparse result stays sparse, in `sparse_result`.
        """
        self.job = job
        self.rank = rank
        self.node = job.layout.worker_nodes[rank]
        self.meter = Meter()
        self.scratch = Scratch(pool or VectorPool(job.d, job.dtype, job.device))
        self.me = Worker(
            rank=rank, n_workers=job.layout.n_workers, spec=job.spec, seed=job.seed,
            memory=Memory(job.worker_slots, job.device), scratch=self.scratch,
        )  # fmt: skip
        self.packet: Packet | None = None
        self.payload_device: torch.device | None = None  # the device payloads are sent from, if not the host
        self.aborted = Abort.NO
        self.result: Tensor | None = None
        self.sparse_result: Sparse | None = None  # instead of `result`, if `sparse_results`
        self.exchange = 0
        self._exchanges: tuple[Exchange, ...] = ()  # of this round
        self._step: Step | None = None
        self._active = active
        self._sparse_results = sparse_results
        self._reader = InputReader(job.algorithm, self.me)

    def count_setup(self) -> None:
        """Count the initial parameters, which are sent to every worker but the one on node 0."""
        if self.node != 0:
            self.count_parameters()

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
        self._exchanges, self.exchange = self.job.exchanges_in(round_), 0
        me.round, me.lr = round_, lr
        self.packet, self.result, self.sparse_result, self._step = None, None, None, None
        self.aborted = inputs.abort
        if self.aborted:
            return
        if not isinstance(inputs.vector, Tensor):
            self.scratch.reclaim(inputs.vector.reads)  # earlier results, unless the gradient is in one of them
        as_given = any(expected.as_given for expected in self._exchanges[:1])
        self.aborted = self._reader.begin(
            inputs, sum_is_checked=self._sum_is_checked, as_given=as_given, overlaps=overlaps
        )
        if not self.aborted:
            self._step = self.job.algorithm.work(me)
            self._advance(None)
        me.gradient_tensors = ()  # releases them

    def write_share(self, start: int, stop: int) -> Abort:
        """Divide the values start .. stop-1 of the all-reduce by the number of workers. Call once for each value.

        Returns:
            Whether the sum will not be finite as far as this worker knows; see `kernels.divide`.
        """
        assert isinstance(self.packet, Dense)
        return self._reader.write_share(self.packet.values, start, stop)

    def _advance(self, reply: Reply | None) -> None:
        """Run the generator to its next packet, or to its result after the last exchange."""
        assert self._step is not None
        name, expected = self.job.algorithm.name, len(self._exchanges)
        try:
            packet = next(self._step) if reply is None else self._step.send(reply)
        except StopIteration as stop:
            if self.exchange != expected:
                raise ContractError(
                    f"{name}: worker {self.rank} ended the round after {self.exchange} of {expected} exchanges; "
                    "every worker must yield equally often (yield None to send nothing)"
                ) from None
            self._take_result(stop.value)
            return
        except NonFiniteError:
            self.aborted = Abort.NON_FINITE
            return
        if self.exchange == expected:
            raise ContractError(f"{name}: worker {self.rank} yields more often than its {expected} exchanges")
        count = self._exchanges[self.exchange].count
        in_star = self.job.algorithm.mode != "decentralized"
        if in_star and packet is not None and packet.count != count:
            raise ContractError(f"{name}: worker {self.rank} yielded {packet.count} coordinates of {count}")
        self.packet = packet
        self.aborted = Abort.unless(packet is None or self._sum_is_checked or packet.finite)

    @property
    def _sum_is_checked(self) -> bool:
        """Whether this exchange is the engine's all-reduce: inf and NaN show in its sum, which all ranks check."""
        return not self.job.layout.shards and any(expected.adds for expected in self._exchanges[self.exchange :][:1])

    def _take_result(self, result: object) -> None:
        if isinstance(result, Sparse) and result.count == self.job.d and self.job.algorithm.consumes == "change":
            self._step = None
            if self._sparse_results:
                self.sparse_result = result
            else:
                self.result = self.scratch()
                result.put_into(self.result)
            return
        if not isinstance(result, Tensor) or result.shape != (self.job.d,):
            raise ContractError(
                f"{self.job.algorithm.name}: work must return a vector of {self.job.d} elements; "
                f"worker {self.rank} returned {result!r:.80}"
            )
        self.result, self._step = result, None

    def outgoing(self) -> list[Encoded]:
        """Return this exchange's frames, one for each shard, encoded and counted: ABORT frames if it is aborted."""
        frames = []
        for index, frame in enumerate(self._frames()):
            data = self._encoded(frame)
            self._count_up(index, frame, data.numel())
            frames.append(data)
        return frames

    def outgoing_from_node(self) -> tuple[dict[int, Encoded], dict[int, Frame]]:
        """Return the same frames by server: encoded for other nodes, decoded for the server on this worker's node."""
        away: dict[int, Encoded] = {}
        here: dict[int, Frame] = {}
        for index, frame in enumerate(self._frames()):
            if index == self._own_shard:
                here[index] = as_received(frame, self.job.spec.stop)
                self._count_up(index, frame, frame.n_bytes)
            else:
                away[index] = self._encoded(frame)
                self._count_up(index, frame, away[index].numel())
        return away, here

    def _frames(self) -> list[Frame]:
        return [self._frame(self._part_for(shard)) for shard in self.job.shards(self._exchange)]

    def _count_up(self, index: int, frame: Frame, n_bytes: int) -> None:
        self._count("up", frame, n_bytes, local=index == self._own_shard, lead=index == 0)

    def outgoing_unsplit(self) -> tuple[Frame, FrameSizes]:
        """Return the same in one frame, as the server decodes it, with the sizes of the frames of `outgoing`."""
        frame = as_received(self._frame(self.packet), self.job.spec.stop)
        sizes = frame_sizes(frame, self.job.shard_bounds(self._exchange), self.job.algorithm, "up")
        self.meter.frames("up", sizes, exchange=self._exchange.name, local=self._own_shard)
        return frame, sizes

    def receive_unsplit(self, frame: Frame, sizes: FrameSizes, shared: Shared) -> None:
        """Continue with an answer in one frame; it is counted as frames of `sizes`."""
        self.meter.frames("down", sizes, exchange=self._exchange.name, local=self._own_shard)
        self.aborted = max(self.aborted, Abort.of(frame))
        self._resume(() if frame.packet is None else (frame.packet,), shared=shared)

    @cached_property
    def _own_shard(self) -> int | None:
        """Index of the shard that this worker's own node serves."""
        nodes = [shard.node for shard in self.job.layout.shards]
        return nodes.index(self.node) if self.node in nodes else None

    def count_copies(self, frames: list[Encoded]) -> None:
        """Count frames that are sent twice: only their bytes, not their payload. Call before `receive`."""
        for shard, data in zip(self.job.shards(self._exchange), frames, strict=True):
            if shard.node != self.node:
                self.meter.collective("up", data.numel(), 0, 0.0, self._exchange.name)

    def outgoing_to_all(self) -> Encoded:
        """Return this exchange's one frame for a layout without a server, counted once for every other worker."""
        frame = self._frame(self.packet)
        data = self._encoded(frame)
        n_bytes = data.numel() * (self.job.layout.n_workers - 1)
        self.meter.collective("up", n_bytes, frame.payload_bits, self._paper_bits_of("up", frame), self._exchange.name)
        return data

    @property
    def peers(self) -> tuple[int, ...]:
        """Ranks of the neighbors that this exchange's packet goes to, in a layout with a graph."""
        return self.job.algorithm.peers(self.rank, self.job.layout.n_workers, self.me.round, self.exchange)

    def outgoing_to_peers(self) -> Encoded:
        """Return this exchange's one frame for the neighbors, counted for each of them."""
        frame = self._frame(self.packet)
        data = self._encoded(frame)
        for number, _ in enumerate(self.peers):
            self._count("up", frame, data.numel(), lead=number == 0)
        return data

    def receive_peers(self, answers: Mapping[int, Answer]) -> None:
        """Continue with the neighbors' frames, by rank. If one aborts the round, the others learn it at its end."""
        packets = {}
        for rank, answer in sorted(answers.items()):
            self._count("down", answer.frame, answer.n_bytes)
            self.aborted = max(self.aborted, Abort.of(answer.frame))
            if answer.frame.packet is not None:
                packets[rank] = answer.frame.packet
        self._resume((), packets=packets)

    @property
    def _exchange(self) -> Exchange:
        return self._exchanges[self.exchange]

    def _frame(self, packet: Packet | None) -> Frame:
        header = Header(
            role="worker", rank=self.rank, round=self.me.round, exchange=self.exchange,
            set_differs=self.aborted is Abort.SET_DIFFERS,
        )  # fmt: skip
        return Frame.carrying(header, packet, aborted=bool(self.aborted))

    def _encoded(self, frame: Frame) -> Encoded:
        return encode(frame) if self.payload_device is None else encode_split(frame, self.payload_device)

    def _part_for(self, shard: Shard) -> Packet | None:
        if self.packet is None or self.packet.count == shard.count:
            return self.packet
        return self.packet.part(shard.offset, shard.stop)

    def _paper_bits_of(self, direction: Literal["up", "down"], frame: Frame) -> float:
        return 0.0 if frame.packet is None else self.job.algorithm.paper_bits_of(direction, frame.packet)

    def _count(
        self, direction: Literal["up", "down"], frame: Frame, n_bytes: int, *, local: bool = False, lead: bool = True
    ) -> None:
        self.meter.frame(
            direction, frame, n_bytes, paper_bits=self._paper_bits_of(direction, frame), exchange=self._exchange.name,
            local=local, flag_bit=self.job.algorithm.skips, lead=lead,
        )  # fmt: skip

    def receive(self, answers: list[Answer], *, delivered: bool = True) -> None:
        """Continue with the servers' answers, one for each shard, to the next packet or the result."""
        parts = []
        for index, (shard, answer) in enumerate(zip(self.job.shards(self._exchange), answers, strict=True)):
            frame = answer.frame
            self._count("down", frame, answer.n_bytes, local=shard.node == self.node, lead=index == 0)
            self.aborted = max(self.aborted, Abort.of(frame))
            if frame.packet is not None:
                parts.append(frame.packet)
        self._resume(tuple(parts), delivered=delivered)

    def receive_own_answer(self, answer: Answer, n_bytes: int) -> None:
        """Continue with the answer this rank computed from all workers' frames; others sent `n_bytes` of them."""
        frame = answer.frame
        self.meter.collective(
            "down", n_bytes, frame.payload_bits, self._paper_bits_of("down", frame), self._exchange.name
        )
        self.aborted = max(self.aborted, Abort.of(frame))
        self._resume(() if frame.packet is None else (frame.packet,))

    def receive_sum(self, mean: Tensor, bytes_each_direction: int, aborted: Abort) -> None:
        """Continue with the result of the engine's all-reduce.

        Args:
            mean: the mean of the workers' vectors.
            bytes_each_direction: what this rank sent in each phase (reduce-scatter, all-gather).
            aborted: whether the sum shows that some worker aborts the round.
        """
        packet = Dense(values=mean, offset=self._exchange.offset)
        directions: tuple[Literal["up", "down"], ...] = ("up", "down")
        for direction in directions:
            paper_bits = self.job.algorithm.paper_bits_of(direction, packet)
            self.meter.collective(direction, bytes_each_direction, packet.payload_bits, paper_bits, self._exchange.name)
        self.aborted = max(self.aborted, aborted)
        self._resume((packet,))

    def _resume(
        self,
        parts: tuple[Packet, ...],
        *,
        delivered: bool = True,
        packets: Mapping[int, Packet] | None = None,
        shared: Shared | None = None,
    ) -> None:
        """Continue with the answer, unless the round is aborted."""
        count, offset = self._exchange.count, self._exchange.offset
        self.exchange += 1
        if self.aborted:
            return
        if shared is not None:
            self._advance(
                SharedReply(
                    delivered=delivered, parts=parts, count=count, offset=offset, empty=shared.empty, shared=shared
                )
            )
            return
        empty = self.scratch if count == self.job.d else partial(self.job.zeros, count)
        self._advance(
            Reply(delivered=delivered, parts=parts, count=count, offset=offset, empty=empty, packets=packets or {})
        )

    def close(self) -> bool:
        """End the round: commit the memory and return True, or drop what was staged and return False."""
        if self._step is not None:
            self._step.close()
            self._step = None
        self.packet = None
        self._reader.release()
        memory = self.me.memory
        if self.aborted:
            memory.drop()
            self.scratch.end_round(memory.values())
            return False
        if self._active is not None:
            offset = self.job.spec.offset
            memory.revert([(start - offset, stop - offset) for start, stop in self._active.inactive()])
        memory.commit()
        self.scratch.end_round(memory.values(), () if self.result is None else (self.result,))
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
        if saved["meter"] is not None:
            self.meter.restore(saved["meter"])
        self.me.link_bytes_per_s = saved["link_bytes_per_s"]
