"""Layouts: which nodes are workers, and which node serves which slice of the vector.

| layout | nodes | who serves |
|---|---|---|
| rank0 | N | node 0, which is also a worker |
| dedicated | N + 1 | the last node, which only serves |
| sharded | N | every node, one slice of the vector each (the papers' multi-server parameter server) |
| allreduce | N | no node: packets that add up go through the engine's own all-reduce |
| allgather | N | no node: every worker sends its packet to all others and computes the server's answer itself |
| peers | N | no node: packets go along the edges of the method's graph |

Where a method's blocks must not be cut, a slice ends where a block does (`Algorithm.server_bounds`).

If a round of the allreduce layout has an exchange whose packets do not add up (positions), that exchange is as in
allgather.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from laconic.errors import Named, OptionError
from laconic.hyperparameters import near_misses

if TYPE_CHECKING:  # the help of the command line lists the layouts before torch is loaded
    from laconic.contract import Algorithm, ModelSpec

LAYOUTS = ("auto", "allreduce", "rank0", "dedicated", "sharded", "allgather", "peers")
_SHORT_D = 1 << 19  # up to here a step waits for messages longer than it computes, or about as long


@dataclass(frozen=True)
class Shard:
    """The slice offset .. stop-1 of the vector, and the node that serves it."""

    node: int
    offset: int
    stop: int

    @cached_property
    def count(self) -> int:
        return self.stop - self.offset


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The nodes of one job. Worker i runs on node `worker_nodes[i]`."""

    name: str
    n_nodes: int
    worker_nodes: tuple[int, ...]
    shards: tuple[Shard, ...]

    @cached_property
    def n_workers(self) -> int:
        return len(self.worker_nodes)

    @cached_property
    def rank_at(self) -> dict[int, int]:
        """The rank of the worker on each node that has one."""
        return {node: rank for rank, node in enumerate(self.worker_nodes)}

    @cached_property
    def has_server(self) -> bool:
        """Whether nodes serve; else workers send to each other, or through the engine's all-reduce."""
        return bool(self.shards)

    @cached_property
    def uses_all_reduce(self) -> bool:
        """Whether packets that add up go through the engine's all-reduce."""
        return self.name == "allreduce"

    @cached_property
    def has_graph(self) -> bool:
        """Whether each worker sends to its neighbors only."""
        return self.name == "peers"


def choose_layout(
    name: str,
    algorithm: Algorithm,
    spec: ModelSpec,
    n_nodes: int,
    *,
    is_part: bool = False,
    at_once: bool = False,
) -> Layout:
    """Return the layout called `name`, or for "auto" the fastest one that the method admits.

    Args:
        name: one of `LAYOUTS`.
        algorithm: the method.
        spec: the parameters that are exchanged.
        n_nodes: number of nodes.
        is_part: whether they are a slice of the parameters, which may be too short for several servers.
        at_once: whether "auto" may be allgather, where that ends a step sooner and sends no more.

    Raises:
        OptionError: for an unknown name, or a layout that the method or the number of nodes does not admit.
    """
    if name not in LAYOUTS:
        near = near_misses(name, list(LAYOUTS))
        raise OptionError(Named("layout", name, quoted=True), f" must be one of {', '.join(LAYOUTS)}{near}")
    if name == "auto":
        name = _fastest(algorithm, spec, n_nodes, at_once=at_once)
    refused = _why_not(name, algorithm, spec, n_nodes, is_part=is_part)
    if refused:
        raise OptionError(Named("layout", name, quoted=True), f" does not go with {algorithm.name}: {refused}")
    all_nodes = tuple(range(n_nodes))
    if name == "dedicated":
        return Layout(
            name=name,
            n_nodes=n_nodes,
            worker_nodes=all_nodes[:-1],
            shards=(Shard(n_nodes - 1, spec.offset, spec.stop),),
        )
    if name == "sharded":
        shards = _shares(spec, algorithm.server_bounds(spec), n_nodes)
        return Layout(name=name, n_nodes=n_nodes, worker_nodes=all_nodes, shards=shards)
    shards = (Shard(0, spec.offset, spec.stop),) if name == "rank0" else ()
    return Layout(name=name, n_nodes=n_nodes, worker_nodes=all_nodes, shards=shards)


def _fastest(algorithm: Algorithm, spec: ModelSpec, n_nodes: int, *, at_once: bool) -> str:
    if algorithm.mode != "rounds":
        return {"decentralized": "peers", "arrivals": "dedicated"}[algorithm.mode]
    if all(exchange.adds for exchange in algorithm.exchanges(spec, n_nodes)):
        return "allreduce"
    if not algorithm.separable:
        return "rank0"  # what the other rank would do beside takes longer than the message that it saves
    if at_once and n_nodes == 2 and spec.d <= _SHORT_D and not algorithm.server_steps:
        return "allgather"  # no more bytes than with servers, and each exchange is over after one message
    return "sharded"


def _why_not(name: str, algorithm: Algorithm, spec: ModelSpec, n_nodes: int, *, is_part: bool) -> str:
    has_bounds = algorithm.separable or bool(algorithm.server_bounds(spec))
    if name != "peers" and algorithm.mode == "decentralized":
        return "it has no server but a graph; use peers"
    if name != "dedicated" and algorithm.is_asynchronous:
        return "its server receives gradients at any time, so it cannot be a worker too; use dedicated"
    if name == "peers" and algorithm.mode != "decentralized":
        return "it has no graph; use rank0, dedicated" + (" or sharded" if has_bounds else "")
    if name == "allreduce" and not any(exchange.adds for exchange in algorithm.exchanges(spec, n_nodes)):
        return "its packets do not add up to the answer; use rank0, dedicated" + (" or sharded" if has_bounds else "")
    if name == "allgather" and algorithm.server_steps:
        return "its server holds the model, of which every worker would need one more; use rank0 or dedicated"
    if name == "allgather" and all(exchange.adds for exchange in algorithm.exchanges(spec, n_nodes)):
        return "its packets add up to the answer, so that fewer bytes are sent with allreduce; use that"
    if name == "sharded" and not has_bounds and not is_part:
        shorter = type(algorithm).server_bounds.__qualname__ != "Algorithm.server_bounds"  # it depends on the blocks
        return "splitting its vector between servers would change the result; use rank0 or dedicated" + (
            f", or blocks that end within the {spec.d:,} parameters" if shorter else ""
        )
    if name == "dedicated" and n_nodes < 2:
        or_else = "" if algorithm.is_asynchronous else ", or use rank0"
        return f"{n_nodes} process leaves no worker beside the server; start at least 2{or_else}"
    return ""


def n_nodes_for(name: str, algorithm: Algorithm | type[Algorithm], n_workers: int) -> int:
    """Return the number of nodes for `n_workers` workers: one more if the server is dedicated."""
    return n_workers + has_dedicated_server(name, by_arrival=algorithm.mode == "arrivals")  # the mode is the class's


def has_dedicated_server(name: str, *, by_arrival: bool) -> bool:
    """Return whether the server of a layout is no worker, for a method that steps by arrival, or in rounds."""
    return name == "dedicated" or (name == "auto" and by_arrival)


def _shares(spec: ModelSpec, bounds: Sequence[int], n: int) -> tuple[Shard, ...]:
    """Return n slices that begin at bounds, or fewer. Empty ones are left out.

    If n does not divide d, the leading ones of equal slices would be longer by one. Each begins at the bound next to
    where it would then.

    Args:
        spec: the parameters.
        bounds: as `Algorithm.server_bounds` returns them.
        n: number of nodes.
    """
    short, longer = divmod(spec.d, n)
    starts = [0, *(_nearest(node * short + min(node, longer), bounds, spec.d) for node in range(1, n)), spec.d]
    return tuple(
        Shard(node, spec.offset + start, spec.offset + stop)
        for node, (start, stop) in enumerate(pairwise(starts))
        if stop > start
    )


def _nearest(place: int, bounds: Sequence[int], d: int) -> int:
    """Return 0, d or the bound that is nearest to `place`; of two the lower."""
    at = bisect_left(bounds, place)
    low, high = bounds[at - 1] if at else 0, bounds[at] if at < len(bounds) else d
    return low if place - low <= high - place else high
