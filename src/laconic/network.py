"""How long messages take: links, and a network of nodes whose ports carry one message at a time.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, section 1.3.1.
Paper -> here: t_latency -> latency_s, t_transfer1MB -> 1e6 / bytes_per_s, worker -> node.

The rule: a message occupies the sender's send port AND the receiver's receive port for latency + bytes /
bandwidth. It starts when it is requested and both ports are free; first come, first served, by request time,
then in the order listed. A node sends and receives at once. The switch between the nodes is unlimited.

Differs: the paper leaves open whether the sender is free again before the latency has passed. It must not be,
or one server answering n workers would take latency + n transfers; the paper has n (latency + transfer).

Holds no packets and no tensors: bytes come in as a number, and go out as nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from laconic.clock import Clock


@dataclass(frozen=True, kw_only=True)
class Link:
    """What one node is joined to the switch by. The default takes no time at all."""

    bytes_per_s: float = math.inf  # each way; 1 Gbit/s is 125e6
    latency_s: float = 0.0  # from the first bit sent to the first bit received

    def __post_init__(self) -> None:
        if not self.bytes_per_s > 0:
            raise ValueError(f"Link: bytes_per_s={self.bytes_per_s} must be above 0 (1 Gbit/s is 125e6)")
        if not 0 <= self.latency_s < math.inf:
            raise ValueError(f"Link: latency_s={self.latency_s} must be at least 0 and finite (10 ms is 0.01)")

    def duration_ns(self, n_bytes: int) -> int:
        """Nanoseconds that a message of `n_bytes` occupies its ports, rounded up to a whole one.

        Exact: rational arithmetic, no float drift. Raises ValueError if `n_bytes` is negative.
        """
        if n_bytes < 0:
            raise ValueError(f"Link.duration_ns: n_bytes={n_bytes} must be at least 0")
        seconds = _as_written(self.latency_s)
        if self.bytes_per_s != math.inf:
            seconds += Fraction(n_bytes) / _as_written(self.bytes_per_s)
        return math.ceil(seconds * 1_000_000_000)


UNLIMITED = Link()


class FreeAt(NamedTuple):
    """When the two ports of a node have nothing left to carry; a time that is not ahead means idle now."""

    send_ns: int
    receive_ns: int


class Network:
    """Nodes 0 to `n_nodes` - 1 around an unlimited switch, each with one send port and one receive port.

    `link` joins every node to the switch, except those that `links` gives their own. A message between two
    different links moves at the slower of the two rates, and its latency is the larger of the two: the end
    that is further away decides, and latencies are not added, because each one is already that of a whole way
    through the switch.
    """

    def __init__(
        self,
        n_nodes: int,
        link: Link = UNLIMITED,
        clock: Clock | None = None,
        links: Mapping[int, Link] | None = None,
    ) -> None:
        """Raises ValueError if there is no node, or `links` names one that does not exist."""
        if n_nodes < 1:
            raise ValueError(f"Network: n_nodes={n_nodes} must be at least 1")
        own = dict(links or {})
        for node in own:
            if not 0 <= node < n_nodes:
                raise ValueError(f"Network: links names node {node}, which must be between 0 and {n_nodes - 1}")
        self.clock = Clock() if clock is None else clock
        self._links = [own.get(node, link) for node in range(n_nodes)]
        self._send_free_ns = [0] * n_nodes
        self._receive_free_ns = [0] * n_nodes

    @property
    def n_nodes(self) -> int:
        """How many nodes there are, servers included."""
        return len(self._links)

    def link_between(self, sender: int, receiver: int) -> Link:
        """The link a message from `sender` to `receiver` sees: the slower rate, the larger latency."""
        ours, theirs = (
            self._links[self._known("sender", sender)],
            self._links[self._known("receiver", receiver)],
        )
        return Link(
            bytes_per_s=min(ours.bytes_per_s, theirs.bytes_per_s),
            latency_s=max(ours.latency_s, theirs.latency_s),
        )

    def free_at(self, node: int) -> FreeAt:
        """When the send and the receive port of `node` have carried all that was requested so far."""
        self._known("node", node)
        return FreeAt(self._send_free_ns[node], self._receive_free_ns[node])

    def send(self, sender: int, receiver: int, n_bytes: int, arrived: Callable[[], None]) -> None:
        """Request a message now; the clock calls `arrived` when its last byte is in.

        That is never before `send` returns. A message from a node to itself takes no time and no port. Raises
        ValueError if a node does not exist or `n_bytes` is negative; then nothing has changed.
        """
        duration_ns = self.link_between(sender, receiver).duration_ns(n_bytes)
        if sender == receiver:
            self.clock.after(0, arrived)
            return
        # Fixing the start here, without looking at later requests, is first come first served only because no
        # earlier request can still turn up: the request time is the clock's, and the clock never goes back.
        # Requests of the same instant are served in the order of these calls.
        start_ns = max(self.clock.now_ns, self._send_free_ns[sender], self._receive_free_ns[receiver])
        end_ns = start_ns + duration_ns
        self._send_free_ns[sender] = self._receive_free_ns[receiver] = end_ns
        self.clock.at(end_ns, arrived)

    def _known(self, name: str, node: int) -> int:
        # Lists take -1 for the last one; a network must not.
        if not 0 <= node < self.n_nodes:
            raise ValueError(f"Network: {name}={node} must be between 0 and {self.n_nodes - 1}")
        return node


@lru_cache(maxsize=1024)
def _as_written(value: float) -> Fraction:
    # The float nearest to 0.1 is a little above it: taken at its bits, 0.1 s would become 100,000,001 ns.
    # The shortest decimal that names the float is what somebody wrote.
    return Fraction(repr(float(value)))
