"""Rounds with one process per worker, over torch.distributed. Every rank runs this same code, in step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Algorithm, Exchange, ModelSpec, Result
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.device_channel import are_distinct, gpu_of
from laconic.errors import SetupError
from laconic.protocol.abort import Abort
from laconic.protocol.async_server import UpdateCounts
from laconic.protocol.frames import Answer
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout
from laconic.protocol.ring_allreduce import ring_bytes
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult
from laconic.protocol.server import ServerSession
from laconic.protocol.worker import WorkerSession
from laconic.telemetry.phases import Seconds
from laconic.wire import Dense, Encoded, Frame, encode


class Processes:
    """This rank's part of the job: a worker session, a server session, or both."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        parameters: Tensor,
        spec: ModelSpec,
        group: dist.ProcessGroup | None = None,
        layout: str = "auto",
        seed: int = 0,
        timeout_s: float = 300.0,
        descend: Callable[[Tensor], Tensor] | None = None,
        active: Active | None = None,
        agreed: Mapping[str, Any] | None = None,
    ) -> None:
        """Set up this rank. Collective: every rank of the group must construct it.

        The `parameters` (d,) are overwritten by rank 0's; `spec` says what they are, and `active` which of them take
        part in a round; by default all. `agreed` holds other settings that must be equal on all ranks, as data that
        JSON can hold.

        Raises:
            ValueError: for a layout that the method does not admit.
            SetupError: if ranks differ in their settings.
            PeerLostError: if a rank is missing.
        """
        self.layout = choose_layout(layout, algorithm, spec, dist.get_world_size(group))
        algorithm.check_size(spec, self.layout.n_workers)
        self.channel = Channel(group, timeout_s)
        self.job = Job(
            algorithm=algorithm, seed=seed, spec=spec, dtype=parameters.dtype, layout=self.layout,
            device=parameters.device,
        )  # fmt: skip
        gpus = self._agree_on_settings(agreed or {}, group)
        self.channel.broadcast(parameters)
        node = self.channel.rank
        ranks = [rank for rank, place in enumerate(self.layout.worker_nodes) if place == node]
        self.pool = VectorPool(spec.d, parameters.dtype, parameters.device)
        self.worker = None
        if ranks:
            self.worker = WorkerSession(self.job, ranks[0], self.pool, active=active, sparse_results=True)
        served = [index for index, shard in enumerate(self.layout.shards) if shard.node == node]
        if not self.layout.shards:
            served = [0]  # every worker computes the server's answer itself
        self.servers = [ServerSession(self.job, index, descend, active=active) for index in served]
        self.rounds = 0
        self.aborted_rounds = 0
        self.seconds = Seconds()
        if self.worker is not None:
            self.worker.count_setup()
        if are_distinct(gpus):
            self.send_from(self.job.device, "nccl")

    @property
    def may_wait(self) -> bool:
        """Whether a worker has to request admission before it computes."""
        return False

    def request_admission(self) -> Tensor | None:
        """Wait until this worker may compute. Returns the parameters (d,) if they have changed, else None."""
        return None

    @property
    def updates(self) -> UpdateCounts | None:
        """What became of all workers' gradients, at the server of an asynchronous method; None elsewhere."""
        return None

    def saved(self) -> dict[str, Any]:
        """Return this rank's state between two rounds."""
        return {
            "rounds": self.rounds, "aborted_rounds": self.aborted_rounds,
            "control_bytes": self.channel.control_bytes,
            "worker": None if self.worker is None else self.worker.saved(),
            "servers": [session.saved() for session in self.servers],
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a saved state does not fit the method's slots."""
        if self.worker is not None:
            self.worker.check(saved["worker"])
        for session in self.servers:
            session.check(saved["servers"])

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from the state that this rank saved."""
        self.rounds, self.aborted_rounds = saved["rounds"], saved["aborted_rounds"]
        self.channel.control_bytes += saved["control_bytes"]  # the restart has sent some too
        if self.worker is not None:
            self.worker.restore(saved["worker"])
        for session in self.servers:
            session.restore(saved["servers"])

    def send_from(self, device: torch.device, engine: str) -> None:
        """Send payloads and vectors to be summed directly from the memory of `device` from now on. Collective.

        Args:
            device: where they are.
            engine: name of the backend in torch.distributed that sends them.

        Raises:
            PeerLostError: if a rank is lost.
        """
        self.channel.open_device_channel(device, engine)
        if self.worker is not None:
            self.worker.payload_device = device

    def _agree_on_settings(self, agreed: Mapping[str, Any], group: dist.ProcessGroup | None) -> list[str | None]:
        """Return each rank's GPU, or None for a rank that sends from its host's memory (then all ranks do)."""
        job = self.job
        mine = {
            "algorithm": job.algorithm.name, "seed": job.seed, "parameters": job.d,
            "shapes": [list(shape) for shape in job.spec.shapes], "dtype": str(job.dtype),
            "layout": self.layout.name, **agreed,
        } | {f"{job.algorithm.name}.{key}": value for key, value in job.algorithm.settings().items()}  # fmt: skip
        gpu = gpu_of(job.device, group)
        gathered = self.channel.gather(mine | ({} if gpu is None else {"gpu": gpu}), "its settings")
        gpus = [settings.pop("gpu", None) for settings in gathered]
        for rank, settings in enumerate(gathered):
            of_rank_0 = gathered[0]
            differs = [key for key in of_rank_0 | settings if settings.get(key) != of_rank_0.get(key)]
            if "algorithm" in differs:
                differs = ["algorithm"]  # and all of its settings
            if differs:
                pairs = ", ".join(
                    f"{key}: {of_rank_0.get(key)!r:.200} and {settings.get(key)!r:.200}" for key in differs
                )
                raise SetupError(f"rank 0 and rank {rank} were set up differently: {pairs}")
        return gpus

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Run one round. Collective.

        Args:
            inputs_of: called once with this worker's rank; not called on a rank that only serves.
            lr: learning rate of this round.

        Returns:
            This worker's result.

        Raises:
            PeerLostError: if a rank is missing.
        """
        worker = self.worker
        if worker is not None:
            inputs = inputs_of(worker.rank)
            self.seconds.phase("compute")
            worker.begin(self.rounds, inputs, lr, overlaps=True)
        else:
            self.seconds.phase("compute")
        aborted = Abort.NO
        for number, exchange in enumerate(self.job.exchanges_in(self.rounds)):
            self.seconds.phase("encode")
            if self.layout.name == "peers":
                self._exchange_with_peers(number)
            elif self.layout.shards:
                aborted = self._star(number, lr)
            else:
                aborted = self._allreduce(exchange) if exchange.adds else self._all_to_all(number, lr)
            if aborted:
                break
        if self.layout.name == "peers":
            aborted = self._agree_on_abort()
        results: dict[int, Result] = {}
        if worker is not None:
            result = worker.result if worker.sparse_result is None else worker.sparse_result
            if worker.close():
                assert result is not None
                results[worker.rank] = result
        for session in self.servers:
            session.close(not aborted)
        if aborted is not Abort.SET_DIFFERS:  # the ranks repeat that round
            self.rounds += 1
            self.aborted_rounds += bool(aborted)
        self.seconds.phase("decode")
        return RoundResult(aborted=aborted, results=results)

    def _star(self, exchange: int, lr: float) -> Abort:
        """Run one exchange through the servers. Returns whether and why some rank aborted the round."""
        worker, me, layout = self.worker, self.channel.rank, self.layout
        away, here = worker.outgoing_from_node() if worker is not None else ({}, {})
        others = [node for node in layout.worker_nodes if node != me]
        self.seconds.phase("encode")
        up = {layout.shards[index].node: data for index, data in away.items()}
        arrived = self._swap(up, others if self.servers else [], "packet")
        replies: dict[int, Frame] = {}
        for session in self.servers:
            session.view.link_bytes_per_s = self.channel.link_bytes_per_s
            frames = {
                rank: here[session.index] if node == me else arrived[node]
                for rank, node in enumerate(layout.worker_nodes)
            }
            replies[session.index] = session.answer_frame(self.rounds, exchange, lr, frames)
        down = {node: data for data in map(encode, replies.values()) for node in others} if others else {}
        self.seconds.phase("decode")
        servers = [shard.node for shard in layout.shards if shard.node != me]
        answers = self._swap(down, servers if worker is not None else [], "answer")
        if worker is None:
            return max(session.aborted for session in self.servers)
        worker.me.link_bytes_per_s = self.channel.link_bytes_per_s
        delivered = [
            Answer.own(replies[index], self.job)
            if shard.node == me
            else Answer.read(answers[shard.node], self.job, index, self.rounds, exchange)
            for index, shard in enumerate(layout.shards)
        ]
        worker.receive(delivered)
        return worker.aborted

    def _swap(self, outgoing: Mapping[int, Encoded], expected: list[int], noun: str) -> dict[int, Encoded]:
        frames = self.channel.swap(outgoing, expected, self.job.spec.stop, f"for its {noun} of round {self.rounds}")
        self.seconds.phase("wait")
        return frames

    def _exchange_with_peers(self, exchange: int) -> None:
        """Run one exchange with the neighbors."""
        worker, me, n = self.worker, self.channel.rank, self.layout.n_workers
        assert worker is not None, "without a server every rank works"
        peers = worker.peers
        data = worker.outgoing_to_peers() if peers else torch.empty(0, dtype=torch.uint8)
        algorithm = self.job.algorithm
        expected = [rank for rank in range(n) if me in algorithm.peers(rank, n, self.rounds, exchange)]
        self.seconds.phase("encode")
        frames = self._swap(dict.fromkeys(peers, data), expected, "packet")
        answers = {
            rank: Answer.read_from_peer(frame, self.job, rank, self.rounds, exchange) for rank, frame in frames.items()
        }
        worker.receive_peers(answers)

    def _agree_on_abort(self) -> Abort:
        """Return whether and why any rank aborted this round. An ABORT control frame reaches only neighbors."""
        assert self.worker is not None
        flag = torch.tensor([self.worker.aborted.mark])
        self.seconds.phase("decode")
        self.channel.all_reduce(flag, f"to end round {self.rounds}")
        self.seconds.phase("wait")
        self.channel.control_bytes += 2 * flag.element_size()
        self.worker.aborted = Abort.of_sum(float(flag))
        return self.worker.aborted

    def _all_to_all(self, exchange: int, lr: float) -> Abort:
        """Run one exchange in which every worker sends its frame to all others. Returns whether and why it aborts."""
        worker, me = self.worker, self.channel.rank
        assert worker is not None, "without a server every rank works"
        own = worker.outgoing_to_all()
        others = [node for node in self.layout.worker_nodes if node != me]
        self.seconds.phase("encode")
        frames = self._swap(dict.fromkeys(others, own), others, "packet")
        n_bytes = sum(data.numel() for data in frames.values())
        reply = self.servers[0].answer(self.rounds, exchange, lr, frames | {me: own})
        worker.receive_own_answer(Answer.read(reply, self.job, 0, self.rounds, exchange), n_bytes)
        return worker.aborted

    def _allreduce(self, exchange: Exchange) -> Abort:
        """Run one exchange by the engine's all-reduce. Returns whether and why some rank aborted the round."""
        worker, d = self.worker, exchange.count
        assert worker is not None, "with an all-reduce every rank works"
        if worker.aborted or not isinstance(worker.packet, Dense):
            reason = worker.aborted or Abort.NON_FINITE
            total = torch.full((d,), reason.mark, dtype=self.job.dtype, device=self.job.device)
            write = None
        else:
            total, write = worker.packet.values, self._sharing(worker, worker.packet.values)
        self.channel.all_reduce(total, f"for the all-reduce of round {self.rounds}", write)
        self.seconds.phase("wait")
        bytes_each_direction = ring_bytes(d, self.channel.size, total.element_size())
        worker.receive_sum(total, bytes_each_direction, Abort.of_sum(float(total[-1])))
        return worker.aborted

    def _sharing(self, worker: WorkerSession, values: Tensor) -> Callable[[int, int], None]:
        """Return a function that writes this worker's share into parts of `values` (d,), in order.

        If the sum may not be finite, it marks the last element, so that all ranks need to check only that one.
        """
        aborted = Abort.NO

        def write(start: int, stop: int) -> None:
            nonlocal aborted
            self.seconds.phase("wait")
            aborted = max(aborted, worker.write_share(start, stop))
            if stop == values.numel() and aborted:
                values[-1] = aborted.mark
            self.seconds.phase("encode")

        return write
