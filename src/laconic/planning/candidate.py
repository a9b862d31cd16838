"""One method on one layout: what its rounds send, its coding times, and its step time on a link.

The rules are the simulator's: all workers begin an exchange together, when the last of them has its answer, and a port
carries one message at a time (`network.py`). Encoding, serving and decoding are computations of their node.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from laconic.contract import Algorithm
from laconic.drivers.simulated.lock_step import Exchanged
from laconic.kernels.api import numba_available
from laconic.network import Link, MessageSchedule, Network, Sites, by_callbacks, by_machine_code
from laconic.protocol.async_timing import AsyncServer
from laconic.protocol.layout import Layout
from laconic.protocol.legs import Answering, Pattern, bytes_across_links, operations, pattern_of

Integers = NDArray[np.int64]

_WARM_UP_UPDATES = 20  # per worker; then the period of an asynchronous server is constant


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What one exchange sends, in bytes."""

    answering: Answering
    up: tuple[tuple[int, ...], ...]
    """up[w][s]: worker w's frame for server s. Without servers, up[w] has one element, or none if w sends nothing.
    If the engine adds up, that is the vector.
    """
    down: tuple[int, ...] = ()
    """down[s]: the reply of server s to each worker."""
    peers: tuple[tuple[int, ...], ...] = ()
    """peers[w]: the workers that get worker w's frame."""

    @classmethod
    def of(cls, exchanged: Exchanged, layout: Layout) -> "Sent":
        """Return what an exchange of the executor has sent."""
        pattern, ranks = exchanged.pattern, layout.rank_at
        up = tuple(tuple(exchanged.up[node]) for node in layout.worker_nodes)
        peers: tuple[tuple[int, ...], ...] = ()
        if pattern.answering is Answering.NOBODY:
            peers = tuple(
                tuple(ranks[leg.receiver] for leg in pattern.ends[node].uploads) for node in layout.worker_nodes
            )
        return cls(answering=pattern.answering, up=up, down=tuple(exchanged.down), peers=peers)

    def pattern(self, layout: Layout) -> Pattern:
        """Return who sends to whom on this layout, with as many servers as there are replies."""
        return pattern_of(layout, self.answering, self.peers, len(self.down) or None)

    def up_by_node(self, layout: Layout) -> dict[int, tuple[int, ...]]:
        """Return `up` by the workers' nodes."""
        return dict(zip(layout.worker_nodes, self.up, strict=True))


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
class MeasuredLinks:
    """What links carry, as measured under three kinds of traffic, in which ports and processors are shared.

    Bandwidths and latencies are those at which the network model gives the measured times.
    """

    server: Link
    """Of a single server: what it sends to all, and as download what all send to it."""
    all_to_all: Link
    """Of each node, while every node sends to all others."""
    ring: Link
    """Of each node, in the engine's all-reduce."""

    def as_data(self) -> dict[str, float]:
        """Return plain data for JSON."""
        return {
            "server_sends_bytes_per_s": self.server.bytes_per_s,
            "server_receives_bytes_per_s": self.server.receiving.bytes_per_s,
            "server_message_s": self.server.latency_s,
            "all_to_all_bytes_per_s": self.all_to_all.bytes_per_s,
            "all_to_all_message_s": self.all_to_all.latency_s,
            "all_reduce_bytes_per_s": self.ring.bytes_per_s,
            "all_reduce_message_s": self.ring.latency_s,
        }

    def scaled(self, factor: float) -> "MeasuredLinks":
        """Return `factor` times the bandwidths."""
        return MeasuredLinks(
            server=self.server.scaled(factor), all_to_all=self.all_to_all.scaled(factor), ring=self.ring.scaled(factor)
        )


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
        return self._mean_bytes(0)

    @property
    def down_bytes(self) -> float:
        """Downloaded bytes that cross a link, per worker and step."""
        return self._mean_bytes(1)

    @property
    def node_bytes(self) -> list[float]:
        """By node, the bytes per step that its link carries: what it sends, and what it receives."""
        carried = np.zeros(self.layout.n_nodes)
        for n_rounds, message_schedules in self._message_schedules:
            for _, steps in message_schedules:
                senders, receivers, n_bytes = _messages(steps)
                for nodes in (senders, receivers):
                    carried += n_rounds * np.bincount(nodes, n_bytes, self.layout.n_nodes)
        return [float(n_bytes) / len(self.rounds) / self.local_steps for n_bytes in carried]

    def between_bytes(self, sites: Sites) -> float:
        """Return the bytes per step that cross from one site to another."""
        site_of, total = np.array(sites.of_nodes(self.layout.n_nodes)), 0.0
        for n_rounds, message_schedules in self._message_schedules:
            for _, steps in message_schedules:
                senders, receivers, n_bytes = _messages(steps)
                total += n_rounds * float(n_bytes[site_of[senders] != site_of[receivers]].sum())
        return total / len(self.rounds) / self.local_steps

    def step_s(self, link: Link, sites: Sites | None = None, measured: MeasuredLinks | None = None) -> float:
        """Return the seconds of one step: the mean over the sampled rounds.

        Args:
            link: The link of every node.
            sites: Where the nodes are; None for one place.
            measured: What the links carry under the traffic of each layout, in place of `link`.
        """
        if self.algorithm.is_asynchronous:
            return self._arrivals_s(link, sites, measured)
        total_ns = sum(
            n_rounds * ended_ns(steps, self._network(answering, link, sites, measured))
            for n_rounds, message_schedules in self._message_schedules
            for answering, steps in message_schedules
        )
        decode_s = sum(part.decode for part in self.coding)  # equal on all workers, after the last answer
        exchange_s = total_ns / len(self.rounds) / 1e9 + decode_s
        return self.gradient_s + exchange_s / self.local_steps

    @cached_property
    def _message_schedules(self) -> list[tuple[int, list[tuple[Answering, MessageSchedule]]]]:
        """How often each distinct round occurs, and of its exchanges who answers, and the message schedules."""
        return [
            (
                n_rounds,
                [
                    (sent.answering, self._message_schedule(sent, coding))
                    for sent, coding in zip(exchanges, self.coding, strict=True)
                ],
            )
            for exchanges, n_rounds in Counter(self.rounds).items()
        ]

    def _message_schedule(self, sent: Sent, coding: CodingSeconds) -> MessageSchedule:
        """Return the message schedule of one exchange, from its encoding to its last answer."""
        listed = operations(
            sent.pattern(self.layout), sent.up_by_node(self.layout), sent.down,
            encode_ns=round(coding.encode * 1e9), serve_ns=round(coding.serve * 1e9),
        )  # fmt: skip
        return MessageSchedule.of(listed)

    def _network(
        self, answering: Answering, link: Link, sites: Sites | None, measured: MeasuredLinks | None
    ) -> Network:
        """Return the network that one exchange runs on, at rest."""
        n_nodes, shards = self.layout.n_nodes, self.layout.shards
        if measured is None or answering is Answering.NOBODY:
            return Network(n_nodes, link, sites=sites)
        if answering is Answering.SERVERS and len(shards) == 1:
            return Network(n_nodes, links={shards[0].node: measured.server})
        return Network(n_nodes, measured.ring if answering is Answering.ENGINE else measured.all_to_all)

    def _arrivals_s(self, link: Link, sites: Sites | None, measured: MeasuredLinks | None) -> float:
        """Return the seconds per step with a server that applies each gradient as it arrives."""
        n, (sent, *_), (coding, *_) = self.layout.n_workers, self.rounds[0], self.coding
        compute_ns = round((self.gradient_s * self.local_steps + coding.path) * 1e9)
        server = AsyncServer(
            self._network(sent.answering, link, sites, measured), n,
            compute_ns=lambda worker, step: compute_ns, bound=self.algorithm.staleness_bound(),
            download_bytes=lambda worker: sent.down[0], upload_bytes=lambda worker: sent.up[worker][0],
        )  # fmt: skip
        n_warm_up, n_updates = _WARM_UP_UPDATES * n, 2 * _WARM_UP_UPDATES * n
        updates = server.run(n_updates)
        period_s = (updates[-1].time_ns - updates[n_warm_up - 1].time_ns) / 1e9 / _WARM_UP_UPDATES
        return max(period_s, n * coding.serve) / self.local_steps

    def _mean_bytes(self, direction: int) -> float:
        total = 0
        for exchanges in self.rounds:
            for sent in exchanges:
                crossed = bytes_across_links(sent.pattern(self.layout), sent.up_by_node(self.layout), sent.down)
                total += crossed[direction]
        return total / len(self.rounds) / self.layout.n_workers / self.local_steps


def ended_ns(steps: MessageSchedule, network: Network) -> int:
    """Return the nanoseconds from the start until the last step of a message schedule is over."""
    # Thousands of small schedules are timed, so machine code pays even for few steps.
    run = by_machine_code if numba_available() else by_callbacks
    return int(run(steps, network).end_ns.max(initial=0))


def _messages(steps: MessageSchedule) -> tuple[Integers, Integers, Integers]:
    """Return senders, receivers and bytes of the messages that cross a link."""
    of = steps.is_message & (steps.node != steps.receiver)
    return steps.node[of], steps.receiver[of], steps.amount[of]
