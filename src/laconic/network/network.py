"""How long messages and computations take: links, and nodes whose ports carry one message or computation at a time.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, section 1.3.1.
Paper -> here: t_latency -> latency_s, t_transfer1MB -> 1e6 / bytes_per_s, worker -> node.

The rule: a message occupies the sender's send port AND the receiver's receive port for latency + bytes /
bandwidth. It starts when it is requested and both ports are free; first come, first served, by request time,
then in the order listed. A node sends and receives at once. The switch between the nodes is unlimited.
A computation occupies its node's compute port in the same way, and no other.

Differs: the paper leaves open whether the sender is free again before the latency has passed. It must not be,
or one server answering n workers would take latency + n transfers; the paper has n (latency + transfer).

Jitter and loss are not in the paper. A message's latency grows by a random share of `jitter_s`. A message is lost
with probability `loss`. The sender then sends it again after `retransmit_s`, until it arrives, and both ports stay
occupied, as they do with a reliable stream. Draws are keyed by (seed, sender, receiver, number of earlier messages
between the two), so other traffic changes none of them.

This file holds no packets and no tensors: it turns numbers of bytes into nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.network.clock import Clock
from laconic.network.link import UNLIMITED, Link, _joined
from laconic.random_keys import make_key

Integers = NDArray[np.int64]

LONGEST_NS = 2**62  # 146 years; twice that still fits in 64 bits


class FreeAt(NamedTuple):
    """When the ports of a node are free, in nanoseconds; a time in the past means free now."""

    send_ns: int
    """The send port."""
    receive_ns: int
    """The receive port."""
    compute_ns: int
    """The compute port."""


@dataclass
class Ports:
    """When the ports of all nodes have finished what was requested so far, in nanoseconds by node."""

    send_ns: list[int]
    """The send ports."""
    receive_ns: list[int]
    """The receive ports."""
    compute_ns: list[int]
    """The compute ports."""


class Network:
    """Nodes 0 to `n_nodes` - 1 around an unlimited switch, each with a send, a receive and a compute port.

    A message between nodes with different links has the lower of the two bandwidths, and the larger of the two
    latencies. Latencies are not added, because each is already that of the complete path through the switch. The larger
    value also counts for jitter, loss and the time until a message is sent again.
    """

    def __init__(
        self,
        n_nodes: int,
        link: Link = UNLIMITED,
        clock: Clock | None = None,
        links: Mapping[int, Link] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """Make a network that is idle.

        Args:
            n_nodes: Number of nodes, servers included.
            link: The link of every node that is not in `links`.
            clock: The clock to run on; None for a new one.
            links: Links of single nodes, by number.
            seed: Seed of jitter and losses; equal seeds give equal times.

        Raises:
            ValueError: There is no node, or `links` names one that does not exist.
        """
        if n_nodes < 1:
            raise ValueError(f"Network: n_nodes={n_nodes} must be at least 1")
        own = dict(links or {})
        for node in own:
            if not 0 <= node < n_nodes:
                raise ValueError(f"Network: links names node {node}, which must be between 0 and {n_nodes - 1}")
        self.clock = Clock() if clock is None else clock
        self.seed = seed
        self.ports = Ports([0] * n_nodes, [0] * n_nodes, [0] * n_nodes)
        self._links = [own.get(node, link) for node in range(n_nodes)]
        self._n_sent: dict[tuple[int, int], int] = {}  # messages over random links, by sender and receiver

    @property
    def n_nodes(self) -> int:
        """Number of nodes, servers included."""
        return len(self._links)

    @property
    def is_random(self) -> bool:
        """Whether any link has jitter or losses."""
        return any(link.is_random for link in self._links)

    @cached_property
    def is_instant(self) -> bool:
        """Whether no message takes any time."""
        return not self.is_random and all(not link.latency_s and link.bytes_per_s == math.inf for link in self._links)

    def link_between(self, sender: int, receiver: int) -> Link:
        """Return the link between two nodes: the lower bandwidth, and the larger of every other value."""
        one, other = (
            self._links[self._known("sender", sender)],
            self._links[self._known("receiver", receiver)],
        )
        return one if one is other else _joined(one, other)

    def durations_ns(self, senders: Integers, receivers: Integers, n_bytes: Integers) -> Integers:
        """Return how long each of m messages occupies its ports, without jitter and losses.

        Args:
            senders: (m,) int64, numbers of nodes.
            receivers: (m,) int64, numbers of nodes.
            n_bytes: (m,) int64.

        Returns:
            (m,) int64 nanoseconds, at most LONGEST_NS; 0 for a message from a node to itself.
        """
        bandwidths, latencies = (
            np.array([getattr(link, name) for link in self._links]) for name in ("bytes_per_s", "latency_s")
        )
        slower = np.where(bandwidths[senders] <= bandwidths[receivers], senders, receivers)
        farther = np.where(latencies[senders] >= latencies[receivers], senders, receivers)
        pairs = [link.rational_ns for link in self._links]
        columns = zip(*(latency + per_byte for latency, per_byte in pairs), strict=True)
        over, under, byte_over, byte_under = (list(column) for column in columns)
        largest = int(n_bytes.max(initial=1)) * max(byte_over) * max(under) + (max(over) + max(under)) * max(byte_under)
        # Python's own whole numbers are exact at any length, and ten times slower.
        kind: Any = np.int64 if largest < 2**63 else np.object_
        a, b = (np.array(column, dtype=kind)[farther] for column in (over, under))
        c, d = (np.array(column, dtype=kind)[slower] for column in (byte_over, byte_under))
        durations_ns: Any = -(-(a * d + n_bytes.astype(kind) * c * b) // (b * d))
        return np.where(senders == receivers, 0, np.minimum(durations_ns, LONGEST_NS)).astype(np.int64)

    def free_at(self, node: int) -> FreeAt:
        """Return when the ports of `node` have finished what was requested so far."""
        self._known("node", node)
        ports = self.ports
        return FreeAt(ports.send_ns[node], ports.receive_ns[node], ports.compute_ns[node])

    def next_start_ns(self, sender: int, receiver: int) -> int:
        """Return when a message from `sender` to `receiver` would start if it were requested now, in nanoseconds."""
        self._known("sender", sender)
        self._known("receiver", receiver)
        return self._start_ns(sender, receiver)

    def send(self, sender: int, receiver: int, n_bytes: int, arrived: Callable[[], None]) -> None:
        """Request a message now.

        A message from a node to itself takes no time and no port.

        Args:
            sender: Number of the node that sends.
            receiver: Number of the node that receives.
            n_bytes: Bytes of the message.
            arrived: Called by the clock when the last byte has arrived, never before `send` returns.

        Raises:
            ValueError: A node does not exist, or `n_bytes` is negative. Nothing has changed then.
        """
        duration_ns = self._duration_ns(sender, receiver, n_bytes)
        if sender == receiver:
            self.clock.after(0, arrived)
            return
        # The start can be fixed here, first come, first served, because no earlier request can still follow: the
        # request time is the clock's, and the clock never goes back.
        # Requests of the same instant are served in the order of these calls.
        end_ns = self._start_ns(sender, receiver) + duration_ns
        self.ports.send_ns[sender] = self.ports.receive_ns[receiver] = end_ns
        self.clock.at(end_ns, arrived)

    def compute(self, node: int, duration_ns: int, done: Callable[[], None]) -> None:
        """Request a computation now. A node runs one computation at a time, in the order of these calls.

        Args:
            node: Number of the node.
            duration_ns: How long it computes, in nanoseconds.
            done: Called by the clock at the end.

        Raises:
            ValueError: The node does not exist, or `duration_ns` is negative. Nothing has changed then.
        """
        self._known("node", node)
        if duration_ns < 0:
            raise ValueError(f"Network.compute: duration_ns={duration_ns} must be at least 0")
        end_ns = max(self.clock.now_ns, self.ports.compute_ns[node]) + duration_ns
        self.ports.compute_ns[node] = end_ns
        self.clock.at(end_ns, done)

    def saved(self) -> dict[str, Any]:
        """Return the clock's time, the ports' times and the counts of sent messages, as data that JSON can hold.

        Messages and computations in progress are not in it; only the ports that they occupy are.
        """
        ports = self.ports
        return {
            "now_ns": self.clock.now_ns, "ports_ns": [ports.send_ns[:], ports.receive_ns[:], ports.compute_ns[:]],
            "n_sent": [[sender, receiver, number] for (sender, receiver), number in self._n_sent.items()],
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from saved times. With another number of nodes, all ports are free when the last one was.

        Args:
            saved: What `saved` returned.

        Raises:
            ValueError: A callback of the clock is scheduled.
        """
        n = self.n_nodes
        self.clock.move_to(saved["now_ns"])
        ports_ns = saved["ports_ns"]
        if len(ports_ns[0]) != n:
            ports_ns = [[max(times_ns)] * n for times_ns in ports_ns]
        self.ports = Ports(*(list(times_ns) for times_ns in ports_ns))
        self._n_sent = {
            (sender, receiver): number for sender, receiver, number in saved["n_sent"] if max(sender, receiver) < n
        }

    def _start_ns(self, sender: int, receiver: int) -> int:
        now_ns = self.clock.now_ns
        if sender == receiver:
            return now_ns
        return max(now_ns, self.ports.send_ns[sender], self.ports.receive_ns[receiver])

    def _duration_ns(self, sender: int, receiver: int, n_bytes: int) -> int:
        link = self.link_between(sender, receiver)
        if not link.is_random or sender == receiver:
            return link.duration_ns(n_bytes)
        number = self._n_sent.get((sender, receiver), 0)
        duration_ns = link.sampled_ns(
            n_bytes, lambda purpose: make_key(self.seed, "link", sender, number, f"{purpose} to {receiver}")
        )
        self._n_sent[sender, receiver] = number + 1
        return duration_ns

    def _known(self, name: str, node: int) -> int:
        # A list takes -1 for its last element; a network must not.
        if not 0 <= node < self.n_nodes:
            raise ValueError(f"Network: {name}={node} must be between 0 and {self.n_nodes - 1}")
        return node
