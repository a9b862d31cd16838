"""All workers in this process, on a virtual clock, with real encoded bytes.

Each round starts on every worker at the same virtual time, when the last worker has its answer (the papers' barrier).
A worker computes for `compute_s`, then its frames queue for its send port and for the servers' receive ports
(`network.py`). Encoding and decoding cost no virtual time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from laconic.clock import Clock
from laconic.contract import Algorithm, ContractError, Exchange, Side
from laconic.drivers.engine import ring_bytes, ring_sum
from laconic.drivers.halves import Answer, Inputs, Job, ServerHalf, WorkerHalf
from laconic.drivers.layout import choose_layout
from laconic.kernels.plain import all_finite
from laconic.network import Link, Network
from laconic.schedules import Message, makespan_ns, ring
from laconic.wire import HEAD_BYTES, Dense


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a round gave: nothing when it was called off, else one vector for all workers or one for each."""

    void: bool
    results: tuple[Tensor, ...]  # one entry when replicas stay equal

    def of(self, rank: int) -> Tensor:
        """The vector (d,) that worker `rank` applies."""
        return self.results[rank if len(self.results) > 1 else 0]


class Simulated:
    """N workers and their servers. Deterministic: one seed gives the same bytes and the same nanoseconds."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        d: int,
        n_workers: int,
        layers: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        server: str = "auto",
        seed: int = 0,
        link: Link | None = None,
        links: Mapping[int, Link] | None = None,
        compute_s: float = 0.0,
        descend: Callable[[Tensor], Tensor] | None = None,
        delivery_seed: int | None = None,
    ) -> None:
        """d: parameters. link: every node's; links: exceptions by node. descend: the server's own model's step.

        delivery_seed: hand frames to the server in a random order; no bit may depend on it.
        Raises ValueError for a wrong number of workers, layout, or compute time.
        """
        if n_workers < 1:
            raise ValueError(f"workers={n_workers} must be at least 1")
        if not 0 <= compute_s < float("inf"):
            raise ValueError(f"compute_s={compute_s} must be at least 0 and finite (200 ms is 0.2)")
        n_nodes = n_workers + (server == "dedicated")
        algorithm.check_size(d, tuple(layers) or (d,), n_workers)
        self.layout = choose_layout(server, algorithm, d, n_nodes)
        self.job = Job(
            algorithm=algorithm, seed=seed, d=d, layers=tuple(layers) or (d,), dtype=dtype, layout=self.layout
        )
        self.workers = [WorkerHalf(self.job, rank) for rank in range(n_workers)]
        n_servers = len(self.layout.shards) or 1  # without one, a single half stands for what each worker works out
        self.servers = [ServerHalf(self.job, index, descend) for index in range(n_servers)]
        for worker in self.workers:
            worker.count_setup()
        self.clock = Clock()
        self.network = Network(n_nodes, link or Link(), self.clock, links)
        self.rounds = 0
        self.void_rounds = 0
        self._compute_ns = round(compute_s * 1e9)
        self._delivery = None if delivery_seed is None else Random(delivery_seed)

    def round(self, inputs_of: Callable[[int], Inputs]) -> Outcome:
        """One round. `inputs_of(rank)` is asked once for each worker, in rank order."""
        lr = 0.0
        for worker in self.workers:
            inputs = inputs_of(worker.rank)
            lr = inputs.lr
            worker.begin(self.rounds, inputs)
        self.clock.run(self.clock.now_ns + self._compute_ns)
        results: list[Tensor] = []
        exchanges = self.job.exchanges_in(self.rounds)
        for number, exchange in enumerate(exchanges):
            if self.layout.name == "neighbours":
                hear = self._neighbours(number)
            elif self.layout.shards:
                hear = self._star(number, lr)
            else:
                hear = self._allreduce(exchange) if exchange.adds else self._all_to_all(number, lr)
            for worker in self.workers:
                hear(worker)
                if worker.void or worker.result is not None:
                    self._close(worker, results)
            if self.workers[0].void:
                break
        if not exchanges:  # a single worker on a ring has nobody to send to
            for worker in self.workers:
                self._close(worker, results)
        happened = not self.workers[0].void
        for server in self.servers:
            server.close(happened)
        self.rounds += 1
        self.void_rounds += not happened
        return Outcome(void=not happened, results=tuple(results))

    def _close(self, worker: WorkerHalf, results: list[Tensor]) -> None:
        """End the round for one worker at once, so that N workers' temporaries never exist together."""
        result = worker.result
        if not worker.close():
            return
        assert result is not None
        if not results or not self.job.algorithm.replicas_equal:
            results.append(result)
        elif not torch.equal(results[0], result):
            raise ContractError(
                f"{self.job.algorithm.name} claims equal replicas, but worker {worker.rank} returned other values "
                f"than worker 0 in round {self.rounds}"
            )

    def _star(self, exchange: int, lr: float) -> Callable[[WorkerHalf], None]:
        """Up, serve, down, and the virtual time of it. Returns how a worker hears the answers."""
        outgoing = [worker.outgoing() for worker in self.workers]
        replies = []
        for index, server in enumerate(self.servers):
            ranks = list(range(len(self.workers)))
            if self._delivery is not None:
                self._delivery.shuffle(ranks)
            replies.append(server.answer(self.rounds, exchange, lr, {rank: outgoing[rank][index] for rank in ranks}))
        makespan_ns(self._messages(outgoing, replies), self.network)
        self._measure_links(outgoing, replies)
        answers = [Answer.read(reply, self.job, index, self.rounds, exchange) for index, reply in enumerate(replies)]
        return lambda worker: worker.hear(answers)

    def _messages(self, outgoing: list[list[Tensor]], replies: list[Tensor]) -> list[Message]:
        """Who sends what to whom: in worker order to a single server, in slots between many (no port idles)."""
        pairs = self._pairs()
        up = [Message(worker.node, server.shard.node, outgoing[worker.rank][i].numel()) for worker, i, server in pairs]
        needs: list[list[int]] = [[] for _ in self.servers]
        for place, (_, index, _) in enumerate(pairs):
            needs[index].append(place)
        after = [tuple(places) for places in needs]
        back = pairs if len(self.servers) == 1 else sorted(pairs, key=self._slot_of_answer)
        down = [Message(server.shard.node, worker.node, replies[i].numel(), after[i]) for worker, i, server in back]
        return up + down

    def _pairs(self) -> list[tuple[WorkerHalf, int, ServerHalf]]:
        """Every worker with every server that is another node; in slot s, node i sends to node i + s."""
        pairs = [
            (worker, index, server)
            for worker in self.workers
            for index, server in enumerate(self.servers)
            if server.shard.node != worker.node
        ]
        if len(self.servers) == 1:
            return pairs
        n = self.layout.n_nodes
        return sorted(pairs, key=lambda pair: ((pair[2].shard.node - pair[0].node) % n, pair[0].node))

    def _slot_of_answer(self, pair: tuple[WorkerHalf, int, ServerHalf]) -> tuple[int, int]:
        worker, _, server = pair
        return (worker.node - server.shard.node) % self.layout.n_nodes, server.shard.node

    def _measure_links(self, outgoing: list[list[Tensor]], replies: list[Tensor]) -> None:
        """What a side would measure: bytes over the time its own frames were under way, queues apart."""
        for worker in self.workers:
            frames = zip(self.servers, outgoing[worker.rank], strict=True)
            self._measured(worker.me, worker.node, [(server.shard.node, data.numel()) for server, data in frames])
        for server, reply in zip(self.servers, replies, strict=True):
            receivers = [(worker.node, reply.numel()) for worker in self.workers]
            self._measured(server.hub, server.shard.node, receivers)

    def _measured(self, side: Side, sender: int, frames: list[tuple[int, int]]) -> None:
        """frames: (receiver, bytes) of what one side sent in this exchange. The slowest counts: all wait for it."""
        rates = []
        for receiver, n_bytes in frames:
            if sender != receiver and n_bytes > HEAD_BYTES:  # a notice says nothing about the link's rate
                duration_ns = self.network.link_between(sender, receiver).duration_ns(n_bytes)
                if duration_ns:
                    rates.append(n_bytes * 1e9 / duration_ns)
        if rates:
            side.link_bytes_per_s = min(rates)

    def _neighbours(self, exchange: int) -> Callable[[WorkerHalf], None]:
        """Every worker's frame to its neighbours. If one calls the round off, all do: they agree on it at its end."""
        peers = {worker.rank: worker.peers for worker in self.workers}
        frames = {worker.rank: worker.outgoing_to_peers() for worker in self.workers if peers[worker.rank]}
        pairs = [(rank, to) for rank, targets in peers.items() for to in targets]
        makespan_ns([Message(rank, to, frames[rank].numel()) for rank, to in pairs], self.network)
        void = any(worker.void for worker in self.workers)
        answers = {
            rank: Answer.read_from_peer(data, self.job, rank, self.rounds, exchange) for rank, data in frames.items()
        }
        arriving: dict[int, dict[int, Answer]] = {worker.rank: {} for worker in self.workers}
        for rank, to in pairs:
            arriving[to][rank] = answers[rank]

        def hear(worker: WorkerHalf) -> None:
            worker.void = worker.void or void
            worker.hear_peers(arriving[worker.rank])

        return hear

    def _all_to_all(self, exchange: int, lr: float) -> Callable[[WorkerHalf], None]:
        """Every worker's frame to every other, in slots. What each works out from them is the same: once is enough."""
        n = len(self.workers)
        frames = {worker.rank: worker.outgoing_to_all() for worker in self.workers}
        reply = self.servers[0].answer(self.rounds, exchange, lr, frames)
        slots = [(rank, (rank + slot) % n) for slot in range(1, n) for rank in range(n)]
        makespan_ns([Message(sender, to, frames[sender].numel()) for sender, to in slots], self.network)
        answer = Answer.read(reply, self.job, 0, self.rounds, exchange)
        total = sum(data.numel() for data in frames.values())
        return lambda worker: worker.hear_all(answer, total - frames[worker.rank].numel())

    def _allreduce(self, exchange: Exchange) -> Callable[[WorkerHalf], None]:
        """What the engine's ring does: the same order of addition, the same bytes, the same messages."""
        n, d = len(self.workers), exchange.count
        packets = [worker.packet for worker in self.workers if isinstance(worker.packet, Dense)]
        if len(packets) == n and not any(worker.void for worker in self.workers):
            mean = ring_sum([packet.values for packet in packets]) / n
            void = not all_finite(mean)
        else:
            mean, void = self.job.zeros(d), True
        half = ring_bytes(d, n, mean.element_size())
        makespan_ns(ring(n, d * mean.element_size()), self.network)

        def hear(worker: WorkerHalf) -> None:
            worker.hear_sum(mean, half, void=void)

        return hear
