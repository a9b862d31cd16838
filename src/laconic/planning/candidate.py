"""One method on one layout: what its rounds send, its coding times, and its step time on a link.

The rules are the simulator's: all workers begin an exchange together, when the last of them has its answer, and a port
carries one message at a time (`network.py`). Encoding, serving and decoding are computations of their node.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from laconic.contract import Algorithm
from laconic.kernels.api import numba_available
from laconic.network import (
    Computation,
    Link,
    Message,
    MessageSchedule,
    Network,
    Operation,
    by_callbacks,
    by_machine_code,
    one_at_a_time,
    ring,
    rounds,
)
from laconic.protocol.async_timing import AsyncServer
from laconic.protocol.layout import Layout
from laconic.protocol.ring_allreduce import ring_bytes

ExchangePattern = Literal["star", "all_to_all", "ring", "peers", "arrivals"]
_WARM_UP_UPDATES = 20  # per worker; then the period of an asynchronous server is constant


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What one exchange sends, in bytes."""

    kind: ExchangePattern
    up: tuple[tuple[int, ...], ...] = ()
    """up[w][s]: worker w's frame for server s. Without servers, up[w] has one element."""
    down: tuple[int, ...] = ()
    """down[s]: the reply of server s to each worker."""
    peers: tuple[tuple[int, ...], ...] = ()
    """peers[w]: the workers that get worker w's frame."""
    vector: int = 0
    """The vector of a ring all-reduce."""


@dataclass(frozen=True, kw_only=True)
class CodingSeconds:
    """Seconds that one exchange computes beside the gradient.

    In an all-to-all exchange every worker does the serving.
    """

    encode: float = 0.0
    """On each worker before it sends."""
    serve: float = 0.0
    """On each server."""
    decode: float = 0.0
    """On each worker after it receives."""

    @property
    def path(self) -> float:
        """The sum along the critical path of one exchange."""
        return self.encode + self.serve + self.decode


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A method on a layout."""

    algorithm: Algorithm
    layout: Layout
    rounds: tuple[tuple[Sent, ...], ...]
    """What each exchange sends, for sampled rounds. A step takes their mean time."""
    coding: tuple[CodingSeconds, ...]
    """Coding times by exchange."""
    compute_s: float = 0.0
    """Seconds of one gradient."""
    local_steps: int = 1
    """Local steps per exchange."""

    @property
    def gradient_s(self) -> float:
        """Seconds of the gradients of one step. Methods that evaluate at two points need two."""
        return self.compute_s * (2 if self.algorithm.second_gradient else 1)

    @property
    def coding_s(self) -> float:
        """Seconds of encoding, serving and decoding per step."""
        return sum(part.path for part in self.coding) / self.local_steps

    @property
    def up_bytes(self) -> float:
        """Uploaded bytes that cross a link, per worker and step."""
        return self._mean_bytes(up=True)

    @property
    def down_bytes(self) -> float:
        """Downloaded bytes that cross a link, per worker and step."""
        return self._mean_bytes(up=False)

    def step_s(self, link: Link) -> float:
        """Return the seconds of one step if every node has this link: the mean over the sampled rounds."""
        if self.rounds and self.rounds[0] and self.rounds[0][0].kind == "arrivals":
            return self._arrivals_s(link)
        # Thousands of small schedules are timed, so machine code pays even for few steps.
        run = by_machine_code if numba_available() else by_callbacks
        total_ns = sum(
            n_rounds * int(run(steps, Network(self.layout.n_nodes, link)).end_ns.max(initial=0))
            for n_rounds, message_schedules in self._message_schedules
            for steps in message_schedules
        )
        decode_s = sum(part.decode for part in self.coding)  # equal on all workers, after the last answer
        exchange_s = total_ns / len(self.rounds) / 1e9 + decode_s
        return self.gradient_s + exchange_s / self.local_steps

    @cached_property
    def _message_schedules(self) -> list[tuple[int, list[MessageSchedule]]]:
        """How often each distinct round occurs, and the message schedules of its exchanges."""
        return [
            (n_rounds, [self._message_schedule(*pair) for pair in zip(sent, self.coding, strict=True)])
            for sent, n_rounds in Counter(self.rounds).items()
        ]

    def _message_schedule(self, sent: Sent, coding: CodingSeconds) -> MessageSchedule:
        """Return the message schedule of one exchange, from its encoding to its last answer."""
        encode_ns, serve_ns = round(coding.encode * 1e9), round(coding.serve * 1e9)
        n = self.layout.n_workers
        if sent.kind == "star":
            return MessageSchedule.of(self._star(sent, encode_ns, serve_ns))
        if sent.kind == "ring":
            return rounds(ring(n, sent.vector), [encode_ns] * n)
        if sent.kind == "all_to_all":
            slots = [(rank, (rank + slot) % n) for slot in range(1, n) for rank in range(n)]
            pattern = [Message(sender, to, sent.up[sender][0]) for sender, to in slots]
            encode_ns += serve_ns  # it follows the frames and is equal on all workers, so only the sum matters
        else:  # in slots too: on a ring every worker sends to the next worker, then to the previous one
            edges = [(rank, to) for rank, peers in enumerate(sent.peers) for to in peers]
            edges.sort(key=lambda edge: ((edge[1] - edge[0]) % n, edge[0]))
            pattern = [Message(rank, to, sent.up[rank][0]) for rank, to in edges]
        return rounds(one_at_a_time(pattern), [encode_ns] * n)

    def _star(self, sent: Sent, encode_ns: int, serve_ns: int) -> list[Operation]:
        """Return the uploads, servings and downloads of a star exchange.

        Messages are in worker order to a single server, and in slots between several, so that no port idles. As in the
        simulator, a sender requests its next message when the previous one has ended.
        """
        workers, n_nodes = self.layout.worker_nodes, self.layout.n_nodes
        servers = [self.layout.shards[index].node for index in range(len(sent.down))]
        steps: list[Operation] = [Computation(node, encode_ns) for node in workers]
        needs = [[rank for rank, node in enumerate(workers) if node == server] for server in servers]
        last: dict[int, int] = {}

        def say(sender: int, receiver: int, n_bytes: int, after: int) -> None:
            earlier = (last[sender],) if sender in last else ()
            last[sender] = len(steps)
            steps.append(Message(sender, receiver, n_bytes, (after, *earlier)))

        pairs = self._crossing_pairs(sent)
        if len(servers) > 1:
            pairs.sort(key=lambda pair: ((servers[pair[1]] - workers[pair[0]]) % n_nodes, workers[pair[0]]))
        for worker, index in pairs:
            needs[index].append(len(steps))
            say(workers[worker], servers[index], sent.up[worker][index], worker)
        served = len(steps)
        steps += [Computation(server, serve_ns, tuple(needs[index])) for index, server in enumerate(servers)]
        if len(servers) > 1:
            pairs.sort(key=lambda pair: ((workers[pair[0]] - servers[pair[1]]) % n_nodes, servers[pair[1]]))
        for worker, index in pairs:
            say(servers[index], workers[worker], sent.down[index], served + index)
        return steps

    def _crossing_pairs(self, sent: Sent) -> list[tuple[int, int]]:
        """Return all pairs of a worker and a server index on different nodes."""
        shards = self.layout.shards[: len(sent.down)]
        return [
            (worker, index)
            for worker, node in enumerate(self.layout.worker_nodes)
            for index, shard in enumerate(shards)
            if shard.node != node
        ]

    def _arrivals_s(self, link: Link) -> float:
        """Return the seconds per step with a server that applies each gradient as it arrives."""
        n, (sent, *_), (coding, *_) = self.layout.n_workers, self.rounds[0], self.coding
        compute_ns = round((self.gradient_s * self.local_steps + coding.path) * 1e9)
        server = AsyncServer(
            Network(n + 1, link), n,
            compute_ns=lambda worker, step: compute_ns, bound=self.algorithm.staleness_bound(),
            download_bytes=lambda worker: sent.down[0], upload_bytes=lambda worker: sent.up[worker][0],
        )  # fmt: skip
        n_warm_up, n_updates = _WARM_UP_UPDATES * n, 2 * _WARM_UP_UPDATES * n
        updates = server.run(n_updates)
        period_s = (updates[-1].time_ns - updates[n_warm_up - 1].time_ns) / 1e9 / _WARM_UP_UPDATES
        return max(period_s, n * coding.serve) / self.local_steps

    def _mean_bytes(self, *, up: bool) -> float:
        total = sum(self._crossing(sent, up=up) for exchanges in self.rounds for sent in exchanges)
        return total / len(self.rounds) / self.layout.n_workers / self.local_steps

    def _crossing(self, sent: Sent, *, up: bool) -> int:
        """Return the bytes of one exchange that cross a link in one direction, summed over the workers."""
        n = self.layout.n_workers
        if sent.kind == "ring":
            return n * ring_bytes(sent.vector, n, 1)
        if sent.kind == "all_to_all":
            return (n - 1) * sum(frames[0] for frames in sent.up)
        if sent.kind == "peers":
            return sum(frames[0] * len(peers) for frames, peers in zip(sent.up, sent.peers, strict=True))
        pairs = self._crossing_pairs(sent)
        return sum(sent.up[worker][index] if up else sent.down[index] for worker, index in pairs)
