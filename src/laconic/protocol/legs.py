"""How the frames of one exchange travel, as data: who sends which frame to whom, in which order, and who answers.

| answering | uploads go | answers go | a rank learns of an aborted round |
|---|---|---|---|
| SERVERS | to the server of each slice | from the servers to all workers | from the answer |
| EVERY_WORKER | to all other workers | nowhere: each worker computes the answer | from the answer |
| ENGINE | through the engine's all-reduce | the same | from the last element of the sum |
| NOBODY | along the edges of a graph | nowhere: the neighbors' packets are the answer | at the end of the round |

Two executors read this: `exchanges.run_rank` for one rank, and the simulator's for all. The messages of the simulator's
and the planner's clocks are made of the same legs.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property, lru_cache
from typing import NamedTuple

from laconic.contract import Algorithm, Exchange
from laconic.network import Computation, Message, Operation, ring, rounds
from laconic.protocol.layout import Layout
from laconic.protocol.ring_allreduce import ring_bytes
from laconic.random_keys import shared_key

_N_GRAPHS = 64  # kept, of methods whose graph changes
_N_LAYOUTS = 16


class Answering(Enum):
    """Who answers the workers' frames."""

    SERVERS = auto()
    EVERY_WORKER = auto()
    ENGINE = auto()
    NOBODY = auto()


class Leg(NamedTuple):
    """One frame that crosses a link."""

    sender: int
    """Node that sends it."""
    shard: int
    """Number of the slice that the frame is about; it is also the number of the server."""
    receiver: int
    """Node that receives it."""
    slot: int
    """Legs of one slot use every port at most once. Slots follow each other, and no port is idle meanwhile."""


class Ends(NamedTuple):
    """One node's part of a pattern."""

    uploads: list[Leg]
    """Frames that its worker sends."""
    uploaders: list[int]
    """Nodes whose frames it receives before it answers."""
    downloads: list[Leg]
    """Answers that it sends."""
    answerers: dict[int, int]
    """Nodes whose answers it receives, each with the number of that server."""
    n_copies: list[int]
    """Of each frame of its worker, how many cross a link."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pattern:
    """The legs of one exchange, each direction in the order of sending."""

    answering: Answering
    servers: tuple[int, ...] = ()
    """The node of each server."""
    one_by_one: bool = False
    """Whether a server answers each worker alone, as its frame arrives."""
    legs: Callable[[], tuple[list[Leg], list[Leg]]] = lambda: ([], [])
    """Lists uploads and downloads. A thousand workers that all serve have two million."""

    @cached_property
    def _legs(self) -> tuple[list[Leg], list[Leg]]:
        return self.legs()

    @cached_property
    def uploads(self) -> list[Leg]:
        """The workers' frames."""
        return self._legs[0]

    @cached_property
    def downloads(self) -> list[Leg]:
        """The servers' answers."""
        return self._legs[1]

    @cached_property
    def n_frames(self) -> int:
        """Number of frames that a worker splits its packet into."""
        return len(self.servers) or 1

    @cached_property
    def copies_count_once(self) -> bool:
        """Whether a frame that goes to many is counted as one message, with the bytes of all its copies."""
        return self.answering is Answering.EVERY_WORKER

    @cached_property
    def starts_together(self) -> bool:
        """Whether the simulator's workers send nothing before all have computed."""
        return self.answering is not Answering.SERVERS

    @cached_property
    def served_at(self) -> dict[int, int]:
        """The number of the server on each node that has one. Its own worker's frame crosses no link."""
        return {node: index for index, node in enumerate(self.servers)}

    @cached_property
    def ends(self) -> defaultdict[int, Ends]:
        """The part of each node."""
        ends: defaultdict[int, Ends] = defaultdict(lambda: Ends([], [], [], {}, [0] * self.n_frames))
        for leg in self.uploads:
            ends[leg.sender].uploads.append(leg)
            ends[leg.sender].n_copies[leg.shard] += 1
            ends[leg.receiver].uploaders.append(leg.sender)
        for leg in self.downloads:
            ends[leg.sender].downloads.append(leg)
            ends[leg.receiver].answerers[leg.sender] = leg.shard
        return ends


def answering_of(layout: Layout, exchange: Exchange) -> Answering:
    """Return who answers the frames of this exchange."""
    if layout.has_graph:
        return Answering.NOBODY
    if layout.has_server:
        return Answering.SERVERS
    return Answering.ENGINE if exchange.adds and layout.uses_all_reduce else Answering.EVERY_WORKER


def frames_of(layout: Layout, exchanges: Sequence[Exchange]) -> Hashable:
    """Return what is equal for layouts in which a method's frames have equal lengths: a server may be a worker or not.

    Args:
        layout: the nodes.
        exchanges: of one round.
    """
    return tuple(answering_of(layout, exchange) for exchange in exchanges), len(layout.shards)


def pattern_of(
    layout: Layout, answering: Answering, peers: tuple[tuple[int, ...], ...] = (), n_servers: int | None = None
) -> Pattern:
    """Return the pattern of an exchange.

    Args:
        layout: the nodes.
        answering: who answers.
        peers: by worker, the workers that get its frame, if nobody answers.
        n_servers: number of servers, if there are fewer than in the layout.
    """
    if answering is Answering.NOBODY:
        return _graph(peers)
    if answering is Answering.SERVERS:
        return _star(layout, n_servers)
    if answering is Answering.EVERY_WORKER:
        return _all_to_all(layout.n_workers)
    return _ENGINE


def pattern_in(
    layout: Layout, algorithm: Algorithm, exchange: Exchange, round_: int, number: int, *, seed: int
) -> Pattern:
    """Return the pattern of exchange `number` of a round of a job with this seed."""
    answering, n = answering_of(layout, exchange), layout.n_workers
    if answering is Answering.NOBODY:
        key = shared_key(seed, round_, "graph")
        return _graph(tuple(algorithm.peers(rank, n, round_, number, key) for rank in range(n)))
    if algorithm.is_asynchronous:
        return _star(layout, one_by_one=True)
    return pattern_of(layout, answering)


_ENGINE = Pattern(answering=Answering.ENGINE)


@lru_cache(maxsize=_N_LAYOUTS)
def _star(layout: Layout, n_servers: int | None = None, *, one_by_one: bool = False) -> Pattern:
    """Return the legs to and from the servers: in worker order to a single one, in slots between several."""
    workers, n_nodes = layout.worker_nodes, layout.n_nodes
    servers = tuple(shard.node for shard in layout.shards[:n_servers])

    def legs() -> tuple[list[Leg], list[Leg]]:
        pairs = [
            (rank, node, index, server)
            for rank, node in enumerate(workers)
            for index, server in enumerate(servers)
            if node != server
        ]
        alone = len(servers) == 1
        up = [Leg(node, i, server, rank if alone else (server - node) % n_nodes) for rank, node, i, server in pairs]
        down = [Leg(server, i, node, rank if alone else (node - server) % n_nodes) for rank, node, i, server in pairs]
        return _in_slots(up), _in_slots(down)

    return Pattern(answering=Answering.SERVERS, servers=servers, one_by_one=one_by_one, legs=legs)


@lru_cache(maxsize=_N_LAYOUTS)
def _all_to_all(n: int) -> Pattern:
    def legs() -> tuple[list[Leg], list[Leg]]:
        return [Leg(rank, 0, (rank + slot) % n, slot) for slot in range(1, n) for rank in range(n)], []

    return Pattern(answering=Answering.EVERY_WORKER, legs=legs)


@lru_cache(maxsize=_N_GRAPHS)
def _graph(peers: tuple[tuple[int, ...], ...]) -> Pattern:
    def legs() -> tuple[list[Leg], list[Leg]]:
        n = len(peers)
        edges = [Leg(rank, 0, to, (to - rank) % n) for rank, targets in enumerate(peers) for to in targets]
        return _in_slots(edges), []

    return Pattern(answering=Answering.NOBODY, legs=legs)


def _in_slots(legs: list[Leg]) -> list[Leg]:
    return sorted(legs, key=lambda leg: (leg.slot, leg.sender))


def operations(
    pattern: Pattern,
    up: Mapping[int, Sequence[int]],
    down: Sequence[int] = (),
    *,
    ready_ns: Mapping[int, int] | None = None,
    n_copies: Mapping[int, int] | None = None,
    not_awaited: Collection[int] = (),
    encode_ns: int = 0,
    serve_ns: int = 0,
) -> Sequence[Operation]:
    """Return the messages and computations of one exchange, until the last answer has arrived.

    A sender requests its next message when its previous one is over; `one_at_a_time` says why.

    Args:
        pattern: who sends to whom.
        up: bytes of the frames of each worker that takes part, by its node; for the engine, of its vector.
        down: bytes of the answers, by server.
        ready_ns: by node, when its worker is ready to send, in nanoseconds from now; by default at once.
        n_copies: by node, how often its worker's frames are sent, if not once.
        not_awaited: nodes of workers whose frames the servers do not wait for.
        encode_ns: nanoseconds that each worker encodes before it sends.
        serve_ns: nanoseconds that each server computes before it answers. If every worker does, all take equally long.
    """
    if pattern.starts_together:
        encode_ns += serve_ns  # it follows the frames and is equal on all workers, so only the sum matters
    if pattern.answering is Answering.ENGINE:
        messages = ring(len(up), up[0][0])
        return rounds(messages, [encode_ns] * len(up)) if encode_ns else messages
    return _Sending(pattern, up, ready_ns or {}, encode_ns).of(down, n_copies or {}, not_awaited, serve_ns)


class _Sending:
    """The operations of one exchange while they are listed."""

    def __init__(
        self, pattern: Pattern, up: Mapping[int, Sequence[int]], ready_ns: Mapping[int, int], encode_ns: int
    ) -> None:
        self._pattern, self._up, self._ready_ns = pattern, up, ready_ns
        self._listed: list[Operation] = []
        self._previous: dict[int, tuple[int, tuple[int, ...]]] = {}  # of each sender: its place and conditions
        self._encoded: Mapping[int, tuple[int, ...]] = {}  # what each worker's messages wait for, by node
        if encode_ns:
            self._listed += [Computation(node, encode_ns, (), ready_ns.get(node, 0)) for node in up]
            self._ready_ns = {}
            each = {node: (place,) for place, node in enumerate(up)}
            self._encoded = dict.fromkeys(up, tuple(range(len(up)))) if pattern.starts_together else each

    def of(
        self, down: Sequence[int], n_copies: Mapping[int, int], not_awaited: Collection[int], serve_ns: int
    ) -> list[Operation]:
        pattern, up = self._pattern, self._up
        needs = [[*self._encoded.get(node, ())] if node not in not_awaited else [] for node in pattern.servers]
        for leg in pattern.uploads:
            copies = n_copies.get(leg.sender, 1)
            if leg.sender not in up or not copies:
                continue
            if pattern.servers and leg.sender not in not_awaited:
                needs[leg.shard].append(len(self._listed))
            after, at_ns = self._encoded.get(leg.sender, ()), self._ready_ns.get(leg.sender, 0)
            for _ in range(copies):
                self._send(leg, up[leg.sender][leg.shard], after, at_ns)
        gates = [
            self._served(node, tuple(needs[index]), 0 if node in not_awaited else self._ready_ns.get(node, 0), serve_ns)
            for index, node in enumerate(pattern.servers)
        ]
        for leg in pattern.downloads:
            if leg.receiver in up:
                self._send(leg, down[leg.shard], *gates[leg.shard])
        return self._listed

    def _served(self, node: int, after: tuple[int, ...], at_ns: int, serve_ns: int) -> tuple[tuple[int, ...], int]:
        """Return what the answers of one server wait for: the steps, and the earliest time."""
        if not serve_ns:
            return after, at_ns
        self._listed.append(Computation(node, serve_ns, after, at_ns))
        return (len(self._listed) - 1,), 0

    def _send(self, leg: Leg, n_bytes: int, conditions: tuple[int, ...], at_ns: int) -> None:
        after = conditions
        if leg.sender in self._previous:
            place, earlier = self._previous[leg.sender]  # its conditions need not be named again
            after = (place,) if earlier is conditions or earlier == conditions else (*conditions, place)
        self._previous[leg.sender] = len(self._listed), conditions
        self._listed.append(Message(leg.sender, leg.receiver, n_bytes, after, at_ns))


def bytes_across_links(pattern: Pattern, up: Mapping[int, Sequence[int]], down: Sequence[int] = ()) -> tuple[int, int]:
    """Return the bytes that all workers send and receive in one exchange; arguments as for `operations`."""
    if pattern.answering is Answering.ENGINE:
        n_bytes = len(up) * ring_bytes(up[0][0], len(up), 1)
        return n_bytes, n_bytes
    sent = sum(up[leg.sender][leg.shard] for leg in pattern.uploads)
    return sent, sum(down[leg.shard] for leg in pattern.downloads) if pattern.downloads else sent
