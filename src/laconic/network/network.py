"""How long messages and computations take: links, and nodes whose ports carry one message or computation at a time.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, section 1.3.1.
Paper -> here: t_latency -> latency_s, t_transfer1MB -> 1e6 / bytes_per_s, worker -> node.

The rule where upload and download are alike: a message occupies the sender's send port AND the receiver's receive
port for latency + bytes / bandwidth. It starts when it is requested and both ports are free; first come, first served,
by request time, then in the order listed. A node sends and receives at once. The switch between the nodes is unlimited.
A computation occupies its node's compute port in the same way, and no other.

The rule of a network in which upload and download differ, or with sites: a port, or a site's line, that could
carry more than a message brings takes others meanwhile. Each port works off what is requested of it, latency + bytes /
its own bandwidth a message, and a site's line bytes / bandwidth; a message is over when the last of them is done with
it, and between sites a latency of the line later. So a server with 100 Mbit/s takes from five workers with 20 Mbit/s at
once, and messages between two sites share the line between them. Where all bandwidths are equal and there are no
sites, messages between many nodes and one take as long by both rules.

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
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.network.clock import Clock
from laconic.network.link import UNLIMITED, Link, _joined, _through
from laconic.network.sites import Sites
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
    out_ns: list[int] = field(default_factory=list)
    """By site, the line in the direction of the other sites."""
    in_ns: list[int] = field(default_factory=list)
    """By site, the line in the direction of the site."""

    def columns(self) -> list[list[int]]:
        """Return the times of the ports, and of the lines where there are sites."""
        lines = [self.out_ns, self.in_ns] if self.out_ns else []
        return [list(times_ns) for times_ns in (self.send_ns, self.receive_ns, self.compute_ns, *lines)]


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
        sites: Sites | None = None,
    ) -> None:
        """Make a network that is idle.

        Args:
            n_nodes: Number of nodes, servers included.
            link: The link of every node that is not in `links`.
            clock: The clock to run on; None for a new one.
            links: Links of single nodes, by number.
            seed: Seed of jitter and losses; equal seeds give equal times.
            sites: Where the nodes are; by default all at one place.

        Raises:
            ValueError: There is no node, `links` names one that does not exist, or the sites have more nodes.
        """
        if n_nodes < 1:
            raise ValueError(f"Network: n_nodes={n_nodes} must be at least 1")
        own = dict(links or {})
        for node in own:
            if not 0 <= node < n_nodes:
                raise ValueError(f"Network: links names node {node}, which must be between 0 and {n_nodes - 1}")
        self.clock = Clock() if clock is None else clock
        self.seed = seed
        self.sites = sites
        self.site_of = [0] * n_nodes if sites is None else sites.of_nodes(n_nodes)
        n_lines = 0 if sites is None else len(sites.sizes)
        self.ports = Ports([0] * n_nodes, [0] * n_nodes, [0] * n_nodes, [0] * n_lines, [0] * n_lines)
        self._links = [own.get(node, link) for node in range(n_nodes)]
        self._n_sent: dict[tuple[int, int], int] = {}  # messages over random links, by sender and receiver

    @property
    def n_nodes(self) -> int:
        """Number of nodes, servers included."""
        return len(self._links)

    @cached_property
    def shares_ports(self) -> bool:
        """Whether ports carry several messages at once: upload and download differ somewhere, or there are sites."""
        return self.sites is not None or any(link.down_bytes_per_s is not None for link in self._links)

    @property
    def line(self) -> Link:
        """The line of each site; unlimited where there are none."""
        return UNLIMITED if self.sites is None else self.sites.line

    @property
    def is_random(self) -> bool:
        """Whether any link has jitter or losses."""
        return any(link.is_random for link in self._links)

    @cached_property
    def is_instant(self) -> bool:
        """Whether no message takes any time."""
        links = [*self._links, self.line]
        return not self.is_random and all(not one.latency_s and one.slower_bytes_per_s == math.inf for one in links)

    def link_between(self, sender: int, receiver: int) -> Link:
        """Return the link from one node to another: the lower bandwidth, and the larger of every other value.

        The line between two sites is not in it.
        """
        one, other = (
            self._links[self._known("sender", sender)],
            self._links[self._known("receiver", receiver)],
        )
        return one if one is other and one.down_bytes_per_s is None else _joined(one, other)

    def durations_ns(self, senders: Integers, receivers: Integers, n_bytes: Integers) -> Integers:
        """Return how long each of m messages occupies its ports, without jitter and losses.

        Args:
            senders: (m,) int64, numbers of nodes.
            receivers: (m,) int64, numbers of nodes.
            n_bytes: (m,) int64.

        Returns:
            (m,) int64 nanoseconds, at most LONGEST_NS; 0 for a message from a node to itself.
        """
        ups, downs = self._bandwidths
        slower = np.where(ups[senders] <= downs[receivers], senders, receivers + self.n_nodes)
        return self._exact_ns(senders, receivers, n_bytes, self._farther(senders, receivers), slower)

    def shared_durations_ns(
        self, senders: Integers, receivers: Integers, n_bytes: Integers
    ) -> tuple[Integers, Integers, Integers]:
        """Return how long each of m messages occupies what it crosses, where ports are shared.

        Args:
            senders: (m,) int64, numbers of nodes.
            receivers: (m,) int64, numbers of nodes.
            n_bytes: (m,) int64.

        Returns:
            (m,) int64 nanoseconds of the send port, of the receive port, and of the line between the sites.
        """
        farther = self._farther(senders, receivers)
        site_of = np.array(self.site_of)
        nowhere, line = np.full(len(senders), 2 * self.n_nodes + 1), np.full(len(senders), 2 * self.n_nodes)
        on_line = self._exact_ns(senders, receivers, n_bytes, nowhere, line)
        return (
            self._exact_ns(senders, receivers, n_bytes, farther, senders),
            self._exact_ns(senders, receivers, n_bytes, farther, receivers + self.n_nodes),
            np.where(site_of[senders] == site_of[receivers], 0, on_line),
        )

    @cached_property
    def _bandwidths(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The bytes per second that each node sends, and receives."""
        return (
            np.array([link.bytes_per_s for link in self._links]),
            np.array([link.receiving.bytes_per_s for link in self._links]),
        )

    def _farther(self, senders: Integers, receivers: Integers) -> Integers:
        latencies = np.array([link.latency_s for link in self._links])
        return np.where(latencies[senders] >= latencies[receivers], senders, receivers)

    def _exact_ns(
        self, senders: Integers, receivers: Integers, n_bytes: Integers, latency_of: Integers, bandwidth_of: Integers
    ) -> Integers:
        """Return latency + bytes / bandwidth of each message, by these links: of nodes, their downloads, the line."""
        links = [*self._links, *(link.receiving for link in self._links), self.line, UNLIMITED]
        pairs = [link.rational_ns for link in links]
        columns = zip(*(latency + per_byte for latency, per_byte in pairs), strict=True)
        over, under, byte_over, byte_under = (list(column) for column in columns)
        largest = int(n_bytes.max(initial=1)) * max(byte_over) * max(under) + (max(over) + max(under)) * max(byte_under)
        # Python's own whole numbers are exact at any length, and ten times slower.
        kind: Any = np.int64 if largest < 2**63 else np.object_
        a, b = (np.array(column, dtype=kind)[latency_of] for column in (over, under))
        c, d = (np.array(column, dtype=kind)[bandwidth_of] for column in (byte_over, byte_under))
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
        if self.shares_ports:
            self.clock.at(self._shared_end_ns(sender, receiver, n_bytes, duration_ns), arrived)
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
        return {
            "now_ns": self.clock.now_ns, "ports_ns": self.ports.columns(),
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
        ports_ns, here = saved["ports_ns"], self.ports.columns()
        if [*map(len, ports_ns)] != [*map(len, here)]:
            ports_ns = [[max(max(times_ns) for times_ns in ports_ns)] * len(times_ns) for times_ns in here]
        self.ports = Ports(*(list(times_ns) for times_ns in ports_ns))
        self._n_sent = {
            (sender, receiver): number for sender, receiver, number in saved["n_sent"] if max(sender, receiver) < n
        }

    def _start_ns(self, sender: int, receiver: int) -> int:
        now_ns = self.clock.now_ns
        if sender == receiver:
            return now_ns
        if self.shares_ports:
            return max(now_ns, self.ports.send_ns[sender])
        return max(now_ns, self.ports.send_ns[sender], self.ports.receive_ns[receiver])

    def _shared_end_ns(self, sender: int, receiver: int, n_bytes: int, duration_ns: int) -> int:
        """Request a message that shares what it crosses with others, and return when it is over."""
        now_ns, ports = self.clock.now_ns, self.ports
        up, down = _through(self._links[sender], self._links[receiver])
        by_chance_ns = duration_ns - self.link_between(sender, receiver).duration_ns(n_bytes)
        crossed = [
            (ports.send_ns, sender, up.duration_ns(n_bytes) + by_chance_ns),
            (ports.receive_ns, receiver, down.duration_ns(n_bytes) + by_chance_ns),
        ]
        from_site, to_site = self.site_of[sender], self.site_of[receiver]
        line, later_ns = self.line, 0
        if from_site != to_site:
            later_ns = line.duration_ns(0)
            line_ns = replace(line, latency_s=0.0).duration_ns(n_bytes)
            crossed += [(ports.out_ns, from_site, line_ns), (ports.in_ns, to_site, line_ns)]
        for free_ns, place, taken_ns in crossed:
            free_ns[place] = max(now_ns, free_ns[place]) + taken_ns
        return max(free_ns[place] for free_ns, place, _ in crossed) + later_ns

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
