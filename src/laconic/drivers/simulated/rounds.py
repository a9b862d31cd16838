"""Rounds with all workers in this process, on a virtual clock; every byte that real processes would send is counted.

Frames are encoded and decoded if a fault may damage them or decoding may change a value; otherwise only their sizes are
computed (`protocol/frame_sizes.py`).

Each round starts on every worker at the same virtual time, when the last worker has its answer (the papers' barrier).
A worker computes for `compute_s`, then its frames queue for its send port and for the servers' receive ports
(`network/network.py`). Encoding and decoding cost no virtual time.

With a fault plan, a server knows at once which packets will not arrive, and answers when it has the others: the time
includes no deadlines. Lost packets occupy ports like others. A late packet is sent when the answers have arrived, and
delays later messages. Parameters for a worker that returns are counted and take no time, like the initial ones.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Algorithm, Exchange, ModelSpec, Result, Scratch, Side
from laconic.errors import ContractError
from laconic.faults.injector import FaultInjector, slowed
from laconic.faults.plan import FaultPlan
from laconic.network import Clock, ComputeTime, Link, Message, Network, Operation, makespan_ns, one_at_a_time, ring
from laconic.protocol.abort import Abort
from laconic.protocol.async_server import UpdateCounts
from laconic.protocol.frame_sizes import as_received, frame_sizes, sizes_where_aborted
from laconic.protocol.frames import Answer
from laconic.protocol.job import Job
from laconic.protocol.layout import Shard, choose_layout, n_nodes_for
from laconic.protocol.resize import resized
from laconic.protocol.ring_allreduce import ring_bytes, ring_sum
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult, same_result
from laconic.protocol.server import ServerSession
from laconic.protocol.shared_reply import Shared
from laconic.protocol.worker import WorkerSession
from laconic.wire import HEADER_BYTES, Dense, Frame, Header


class Simulated:
    """N workers and their servers. Deterministic: one seed gives the same bytes and the same nanoseconds."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        spec: ModelSpec,
        n_workers: int,
        dtype: torch.dtype = torch.float32,
        layout: str = "auto",
        seed: int = 0,
        link: Link | None = None,
        links: Mapping[int, Link] | None = None,
        compute_s: float | Mapping[int, float] | ComputeTime = 0.0,
        descend: Callable[[Tensor], Tensor] | None = None,
        active: Active | None = None,
        delivery_seed: int | None = None,
        faults: FaultPlan | None = None,
        sparse_results: bool = False,
    ) -> None:
        """Set up the workers and their servers for the parameters that `spec` describes.

        `link` is that of every node, and `links` holds exceptions by node. `compute_s` is the time of one gradient,
        in seconds: for all workers, by worker, or as a distribution. `descend` steps the server's own model. `active`
        says which parameters take part in a round; by default all do. With `sparse_results`, a result that the method
        returns as a sparse packet stays one. With `delivery_seed`, the server receives frames in a random order; no bit
        may depend on it.

        Raises:
            ValueError: for a wrong number of workers, layout or compute time, or faults that the method does not
                tolerate.
        """
        if n_workers < 1:
            raise ValueError(f"workers={n_workers} must be at least 1")
        if isinstance(compute_s, (int, float)) and not 0 <= compute_s < float("inf"):
            raise ValueError(f"compute_s={compute_s} must be at least 0 and finite (200 ms is 0.2)")
        self.compute_time = compute_s if isinstance(compute_s, ComputeTime) else ComputeTime(seconds=compute_s)
        self.compute_time.check(n_workers)
        n_nodes = n_nodes_for(layout, algorithm, n_workers)
        algorithm.check_size(spec, n_workers)
        self.layout = choose_layout(layout, algorithm, spec, n_nodes)
        if faults is not None:
            faults.check(algorithm, self.layout.name, n_workers)
            links = slowed(faults, link or Link(), links, self.layout.worker_nodes)
            if faults.is_slowing and not compute_s:
                raise ValueError("faults: stragglers need a time of computing; give one, such as 50ms")
        self.job = Job(algorithm=algorithm, seed=seed, spec=spec, dtype=dtype, layout=self.layout)
        self.pool = pool = VectorPool(spec.d, dtype)
        self.workers = [
            WorkerSession(self.job, rank, pool, active=active, sparse_results=sparse_results)
            for rank in range(n_workers)
        ]
        self.is_unsplit = faults is None and delivery_seed is None  # one server then serves all slices
        # Without servers, one computes what each worker would.
        n_servers = 1 if self.is_unsplit else len(self.layout.shards) or 1
        self.servers = [
            ServerSession(self.job, index, descend, active=active, unsplit=n_servers == 1) for index in range(n_servers)
        ]
        self._scratch = Scratch(pool)  # for the dense answers that workers share
        for worker in self.workers:
            worker.count_setup()
        self.clock = Clock()
        self.network = Network(n_nodes, link or Link(), self.clock, links)
        self.rounds = 0
        self.aborted_rounds = 0
        self.injector = FaultInjector(faults, n_workers)
        self._ready_ns: dict[int, int] = {}  # by worker, how much longer than the fastest it computes
        self.pulled: list[Tensor] = []
        """By worker, the parameters (d,) that an asynchronous server has sent to it; empty with other methods."""
        self._delivery = None if delivery_seed is None else Random(delivery_seed)

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Run one round.

        Args:
            inputs_of: called once with the rank of each worker that is up, in rank order.
            lr: learning rate of this round.

        Returns:
            Each worker's result. If replicas stay equal, it is one object for all, also for workers that are down.
        """
        present = self.injector.taking_part(self.workers, self.rounds)
        for worker in present:
            inputs = inputs_of(worker.rank)
            if not isinstance(inputs.vector, Tensor):
                self.reclaim(inputs.vector.reads)
            worker.begin(self.rounds, inputs, lr)
        self._compute(present)
        results: list[Result] = []
        exchanges = self.job.exchanges_in(self.rounds) if present else ()
        for number, exchange in enumerate(exchanges):
            if self.layout.name == "peers":
                receive = self._exchange_with_peers(number)
            elif self.layout.shards:
                receive = (self._star_unsplit if self.is_unsplit else self._star)(present, number, lr)
            else:
                receive = self._allreduce(exchange) if exchange.adds else self._all_to_all(number, lr)
            for worker in present:
                receive(worker)
                if worker.aborted or worker.result is not None or worker.sparse_result is not None:
                    self._close(worker, results)
            if present[0].aborted:
                break
        if not exchanges:  # a single worker on a ring has no peer
            for worker in present:
                self._close(worker, results)
        aborted = present[0].aborted if present else Abort.ABSENCE
        for server in self.servers:
            server.close(not aborted)
        held = (value for worker in self.workers for value in worker.me.memory.values())
        self._scratch.end_round(held, [result for result in results if isinstance(result, Tensor)])
        self.rounds += 1
        self.aborted_rounds += aborted is Abort.NON_FINITE
        return RoundResult(aborted=aborted, results=self._by_rank(results))

    def _by_rank(self, results: list[Result]) -> dict[int, Result]:
        if len(results) == 1:  # equal replicas
            return dict.fromkeys(range(len(self.workers)), results[0])
        return dict(enumerate(results))

    def updates_of(self, rank: int) -> UpdateCounts | None:
        """Return what became of worker `rank`'s gradients; None if the method is not asynchronous."""
        return None

    def reclaim(self, is_used: Callable[[Tensor], bool] = lambda _: False) -> None:
        """Reuse the vectors of earlier results, except those for which `is_used` returns True."""
        self._scratch.reclaim(is_used)

    def saved(self) -> dict[str, Any]:
        """Return the state between two rounds: the sessions, the network's times and the counts."""
        return {
            "rounds": self.rounds, "aborted_rounds": self.aborted_rounds, "network": self.network.saved(),
            "faults": self.injector.saved(), "workers": [worker.saved() for worker in self.workers],
            "servers": [server.saved() for server in self.servers],
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a saved state does not fit the method's slots."""
        workers, servers = resized(saved["workers"], saved["servers"], self.job)
        for worker, state in zip(self.workers, workers, strict=True):
            worker.check(state)
        for server in self.servers:
            server.check(servers)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state, before the first round. It may be of another number of workers or servers."""
        workers, servers = resized(saved["workers"], saved["servers"], self.job)
        self.network.restore(saved["network"])
        self.injector.restore(saved["faults"])
        for worker, state in zip(self.workers, workers, strict=True):
            worker.restore(state)
        for server in self.servers:
            server.restore(servers)
        self.rounds, self.aborted_rounds = saved["rounds"], saved["aborted_rounds"]

    def _compute(self, present: list[WorkerSession]) -> None:
        """Run the clock until the fastest worker has its gradient, and record how much longer the others take."""
        ranks = [worker.rank for worker in present]
        usual_ns = {rank: self.compute_time.ns(rank, self.rounds, seed=self.job.seed) for rank in ranks}
        factors = {rank: self.injector.plan.compute_factor(rank, self.rounds) for rank in ranks}
        times_ns = {rank: round(usual_ns[rank] * factor) for rank, factor in factors.items()}
        fastest_ns = min(times_ns.values(), default=self.compute_time.ns(0, self.rounds, seed=self.job.seed))
        self._ready_ns = {rank: time_ns - fastest_ns for rank, time_ns in times_ns.items()}
        self.clock.run(self.clock.now_ns + fastest_ns)

    def _close(self, worker: WorkerSession, results: list[Result]) -> None:
        """End the round for one worker at once, so that N workers' temporaries never exist together."""
        result: Result | None = worker.result if worker.sparse_result is None else worker.sparse_result
        if not worker.close():
            return
        assert result is not None
        if not results or not self.job.algorithm.replicas_equal:
            results.append(result)
        elif not same_result(result, results[0]):
            raise ContractError(
                f"{self.job.algorithm.name} claims equal replicas, but worker {worker.rank} returned other values "
                f"than worker 0 in round {self.rounds}"
            )
        elif isinstance(results[0], Tensor):
            own = worker.result = results[0]  # its own vector is reused
            worker.scratch.reclaim(lambda vector: vector.data_ptr() == own.data_ptr())

    def _star(self, present: list[WorkerSession], exchange: int, lr: float) -> Callable[[WorkerSession], None]:
        """Run one exchange through the servers, on the clock. Returns a function that gives a worker the answers."""
        injector, round_ = self.injector, self.rounds
        outgoing = {worker.rank: injector.send(worker, round_, exchange) for worker in present}
        replies = []
        delivered = set(outgoing)
        for index, server in enumerate(self.servers):
            arriving = injector.arriving(outgoing, index, round_, exchange)
            ranks = list(arriving)
            if self._delivery is not None:
                self._delivery.shuffle(ranks)
            frames = {rank: arriving[rank] for rank in ranks}
            replies.append(server.answer(round_, exchange, lr, frames, damage_expected=injector.expected))
            delivered &= arriving.keys() - server.unread
        up = {rank: [data.numel() for data in parts] for rank, parts in outgoing.items()}
        down = [data.numel() for data in replies]
        self._pass_time(present, up, down)
        self._measure_links(present, up, down)
        answers = [Answer.read(reply, self.job, index, round_, exchange) for index, reply in enumerate(replies)]
        return lambda worker: worker.receive(answers, delivered=worker.rank in delivered)

    def _star_unsplit(self, present: list[WorkerSession], exchange: int, lr: float) -> Callable[[WorkerSession], None]:
        """Do the same if no fault is possible: packets stay unsplit, and only the sizes of the slices are computed."""
        (server,), round_ = self.servers, self.rounds
        expected = self.job.exchanges_in(round_)[exchange]
        sent = {worker.rank: worker.outgoing_unsplit() for worker in present}
        packet = server.serve(round_, exchange, lr, {rank: frame for rank, (frame, _) in sent.items()})
        header = Header(role="server", rank=0, round=round_, exchange=exchange)
        frame = as_received(Frame.carrying(header, packet, aborted=bool(server.aborted)), self.job.spec.stop)
        if server.refused is not None:
            sizes = sizes_where_aborted(server.refused, self.job.shards(expected), self.job.algorithm)
        else:
            sizes = frame_sizes(frame, self.job.shard_bounds(expected), self.job.algorithm, "down")
        up = {rank: of_rank.n_bytes for rank, (_, of_rank) in sent.items()}
        self._pass_time(present, up, sizes.n_bytes)
        self._measure_links(present, up, sizes.n_bytes)
        shared = Shared(self._scratch if expected.count == self.job.d else partial(self.job.zeros, expected.count))
        return lambda worker: worker.receive_unsplit(frame, sizes, shared)

    def _pass_time(self, present: list[WorkerSession], up: dict[int, list[int]], down: list[int]) -> None:
        """Run the clock until all workers have the answers; then send the late packets.

        Args:
            present: the workers that take part.
            up: bytes by worker and server.
            down: bytes by server.
        """
        done_ns = self.clock.now_ns + max(self._ready_ns.values())
        if not self.network.is_instant:
            makespan_ns(one_at_a_time(self._messages(present, up, down)), self.network)
        self.clock.run(max(done_ns, self.clock.now_ns))
        self._ready_ns = dict.fromkeys(self._ready_ns, 0)  # the next exchange starts on all workers at once
        late = [worker for worker in present if self.injector.is_late(worker.rank)]
        for worker, index, shard in self._pairs(late):
            self.network.send(worker.node, shard.node, up[worker.rank][index], lambda: None)

    def _pass_time_of_all(self, messages: Callable[[], Sequence[Operation]]) -> None:
        """Do the same without a server; no worker sends before all have computed."""
        self.clock.run(self.clock.now_ns + max(self._ready_ns.values(), default=0))
        self._ready_ns = dict.fromkeys(self._ready_ns, 0)
        if not self.network.is_instant:
            makespan_ns(messages(), self.network)

    def _messages(self, present: list[WorkerSession], up: dict[int, list[int]], down: list[int]) -> list[Message]:
        """Return the messages: in worker order to a single server, in slots between many (so that no port idles)."""
        pairs = self._pairs(present)
        ready_ns = self._ready_ns
        requests: list[Message] = []
        needs: list[list[int]] = [[] for _ in self.layout.shards]
        for worker, index, shard in pairs:
            if self.injector.is_late(worker.rank):
                continue
            message = Message(worker.node, shard.node, up[worker.rank][index], at_ns=ready_ns[worker.rank])
            if self.injector.is_awaited(worker.rank):
                needs[index].append(len(requests))
            requests += [message] * self.injector.n_copies(worker.rank)
        after = [tuple(indices) for indices in needs]
        awaited = [worker for worker in present if self.injector.is_awaited(worker.rank)]
        own_ns = {worker.node: ready_ns[worker.rank] for worker in awaited}  # a node's own packet is no message
        back = pairs if len(self.layout.shards) == 1 else sorted(pairs, key=self._slot_of_answer)
        return requests + [
            Message(shard.node, worker.node, down[i], after[i], own_ns.get(shard.node, 0)) for worker, i, shard in back
        ]

    def _pairs(self, present: list[WorkerSession]) -> list[tuple[WorkerSession, int, Shard]]:
        """Pair every worker with every server on another node; in slot s, node i sends to node i + s."""
        shards = self.layout.shards
        numbered = list(enumerate(shards))
        pairs = [(worker, index, to) for worker in present for index, to in numbered if to.node != worker.node]
        if len(shards) == 1:
            return pairs
        n = self.layout.n_nodes
        return sorted(pairs, key=lambda pair: ((pair[2].node - pair[0].node) % n, pair[0].node))

    def _slot_of_answer(self, pair: tuple[WorkerSession, int, Shard]) -> tuple[int, int]:
        worker, _, shard = pair
        return (worker.node - shard.node) % self.layout.n_nodes, shard.node

    def _measure_links(self, present: list[WorkerSession], up: dict[int, list[int]], down: list[int]) -> None:
        """Set the bandwidth that each side would measure: bytes over the time its frames were sent, without queues.

        If one server stands for several, it measures nothing: separable methods do not use the servers' links.
        """
        shards = self.layout.shards
        if self.network.is_instant:
            return
        for worker in present:
            frames = [(shard.node, n) for shard, n in zip(shards, up[worker.rank], strict=True)]
            self._measured(worker.me, worker.node, frames)
        if len(self.servers) != len(shards):
            return
        for server, shard, n_bytes in zip(self.servers, shards, down, strict=True):
            self._measured(server.view, shard.node, [(worker.node, n_bytes) for worker in present])

    def _measured(self, side: Side, sender: int, frames: list[tuple[int, int]]) -> None:
        """Set the bandwidth of the slowest of the `frames` (receiver, bytes) that one side sent; all wait for that."""
        bandwidths = []
        for receiver, n_bytes in frames:
            if sender != receiver and n_bytes > HEADER_BYTES:  # a control frame is too short to measure
                duration_ns = self.network.link_between(sender, receiver).duration_ns(n_bytes)
                if duration_ns:
                    bandwidths.append(n_bytes * 1e9 / duration_ns)
        if bandwidths:
            side.link_bytes_per_s = min(bandwidths)

    def _exchange_with_peers(self, exchange: int) -> Callable[[WorkerSession], None]:
        """Run one exchange with the neighbors. If one worker aborts the round, all do: they agree on it at its end."""
        peers = {worker.rank: worker.peers for worker in self.workers}
        frames = {worker.rank: worker.outgoing_to_peers() for worker in self.workers if peers[worker.rank]}
        n = len(self.workers)
        pairs = [(rank, to) for rank, targets in peers.items() for to in targets]
        pairs.sort(key=lambda pair: ((pair[1] - pair[0]) % n, pair[0]))  # in slots, so that no port idles
        self._pass_time_of_all(lambda: one_at_a_time([Message(i, to, frames[i].numel()) for i, to in pairs]))
        aborted = max(worker.aborted for worker in self.workers)
        answers = {
            rank: Answer.read_from_peer(data, self.job, rank, self.rounds, exchange) for rank, data in frames.items()
        }
        arriving: dict[int, dict[int, Answer]] = {worker.rank: {} for worker in self.workers}
        for rank, to in pairs:
            arriving[to][rank] = answers[rank]

        def receive(worker: WorkerSession) -> None:
            worker.aborted = max(worker.aborted, aborted)
            worker.receive_peers(arriving[worker.rank])

        return receive

    def _all_to_all(self, exchange: int, lr: float) -> Callable[[WorkerSession], None]:
        """Send every worker's frame to all others, in slots. All compute the same answer, so it is computed once."""
        n = len(self.workers)
        frames = {worker.rank: worker.outgoing_to_all() for worker in self.workers}
        reply = self.servers[0].answer(self.rounds, exchange, lr, frames)
        slots = [(rank, (rank + slot) % n) for slot in range(1, n) for rank in range(n)]
        self._pass_time_of_all(lambda: one_at_a_time([Message(i, to, frames[i].numel()) for i, to in slots]))
        answer = Answer.read(reply, self.job, 0, self.rounds, exchange)
        total = sum(data.numel() for data in frames.values())
        return lambda worker: worker.receive_own_answer(answer, total - frames[worker.rank].numel())

    def _allreduce(self, exchange: Exchange) -> Callable[[WorkerSession], None]:
        """Run the engine's ring all-reduce: the same order of addition, the same bytes, the same messages."""
        n, d = len(self.workers), exchange.count
        packets = [worker.packet for worker in self.workers if isinstance(worker.packet, Dense)]
        aborted = max(worker.aborted for worker in self.workers)
        if not aborted:
            aborted = max(worker.write_share(0, d) for worker in self.workers)
        mean = self.job.zeros(d) if aborted else ring_sum([packet.values for packet in packets])
        one_direction = ring_bytes(d, n, mean.element_size())
        self._pass_time_of_all(lambda: ring(n, d * mean.element_size()))

        def receive(worker: WorkerSession) -> None:
            worker.receive_sum(mean, one_direction, aborted)

        return receive
