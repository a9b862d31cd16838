"""Who talks to whom without a server, and how much each one's model counts: the mixing matrix W of decentralized SGD.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, sections 5.1 and 5.2;
weights of a graph: Xiao, Boyd and Lall: A Scheme for Robust Distributed Sensor Fusion, IPSN 2005, Metropolis weights.
Paper -> here: W -> Mixing, rho -> Mixing.rho, 1 - rho -> spectral_gap; W_1 is "full", W_2 is "ring".
Differs: rho(W_2) is close to 1 - 4 pi^2 / (3 N^2), where 16 is printed for 4; rho(W_1) is 0, where the text says 1.
"shift-one" is a round-robin tournament, so that everybody meets everybody; Bagua's only joins two fixed halves.

Every graph has the weights 1 / (1 + the larger of both ends' degrees). On a graph where all have the same degree
that is an equal share for each neighbour and oneself: 1/3 on a ring, 1/N on the full graph, 1/2 in a pair.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from laconic.gossip.graphs import _BUILDERS, GRAPHS, SHIFT_ONE, Edge, _pairs, _sorted, cycle_length
from laconic.hyperparameters import near_misses

ROUNDING = 1e-12  # weights closer than this to each other or to 0 differ by rounding
TOLERANCE = 1e-6  # how far a matrix typed in, or computed in float32, may be from symmetric and from rows of 1
EXAMPLE = "'0-1 1-2 2-0' or, with weights, '0-1:0.25 1-2:0.25 2-0:0.25'"


class Graph(Protocol):
    """What is read of a networkx graph."""

    @property
    def nodes(self) -> Iterable[Any]:
        """The workers, 0 to n - 1."""

    @property
    def edges(self) -> Iterable[Any]:
        """Pairs of workers."""


@dataclass(frozen=True)
class Mixing:
    """A symmetric, doubly stochastic W (n, n), float64, kept as each worker's neighbours and weights."""

    rows: tuple[
        tuple[tuple[int, float], ...], ...
    ]  # of each worker: (neighbour, weight > 0), ascending, itself left out
    self_weights: tuple[float, ...]  # what the neighbours leave of 1
    name: str = field(default="", compare=False)  # a builder's, or the edges where the weights follow from them

    @classmethod
    def from_text(cls, text: str, n_workers: int, round_: int = 0) -> "Mixing":
        """The W that a user typed, of one round: a name out of TOPOLOGIES, or edges such as "0-1 1-2 2-0".

        Only "shift-one" depends on the round, and its W of one round is not connected: `over_cycle` is.
        Raises ValueError for an unknown word, a bad edge, a count of workers that the name cannot serve, and a W
        under which models do not come together.
        """
        _check_count(n_workers)
        return _from_text(text, n_workers, round_ % cycle_length(text, n_workers))

    @classmethod
    def over_cycle(cls, text: str, n_workers: int) -> "Mixing":
        """The mean W of a cycle of rounds: that of `from_text` for all but "shift-one". Raises as `from_text` does."""
        if text != SHIFT_ONE:
            return cls.from_text(text, n_workers)
        _check_count(n_workers)
        length = cycle_length(text, n_workers)
        meetings = Counter(edge for round_ in range(length) for edge in _pairs(n_workers, round_))
        return _connected(_from_weights({edge: 0.5 * n / length for edge, n in meetings.items()}, n_workers))

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> "Mixing":
        """W from a table (n, n) of numbers. Self weights are what the others leave of 1, so the mean model stays put.

        Raises ValueError if it is not square, finite, symmetric and free of negative weights, if a row does not sum
        to 1, or if models do not come together under it.
        """
        table = _checked_matrix(matrix)
        upper = np.triu((table + table.T) / 2, 1)
        upper[upper <= ROUNDING] = 0
        rows, columns = np.nonzero(upper)
        edges = zip(rows.tolist(), columns.tolist(), strict=True)
        weights = dict(zip(edges, upper[rows, columns].tolist(), strict=True))
        return _connected(_from_weights(weights, len(table)))

    @classmethod
    def from_graph(cls, graph: Graph) -> "Mixing":
        """Metropolis weights on an undirected networkx graph with the nodes 0 to n - 1; attributes are not read.

        Raises ValueError for other nodes, for directed graphs, self-loops and double edges, and for graphs in parts.
        """
        nodes = set(graph.nodes)
        n_workers = len(nodes)
        if not nodes or nodes != set(range(n_workers)):
            raise ValueError(
                f"from_graph: the {n_workers} nodes must be the workers 0 to n - 1; "
                "networkx.convert_node_labels_to_integers renames them"
            )
        is_directed: Callable[[], bool] | None = getattr(graph, "is_directed", None)
        if is_directed is not None and is_directed():
            raise ValueError("from_graph: edges must go both ways, W is symmetric; use graph.to_undirected()")
        edges = [_checked_edge(int(one), int(other), n_workers, "from_graph") for one, other, *_ in graph.edges]
        _check_unique(edges, "from_graph")
        return _on_edges(edges, n_workers)

    @property
    def n_workers(self) -> int:
        """N, the number of rows and columns."""
        return len(self.rows)

    @cached_property
    def text(self) -> str:
        """What `from_text` makes this W of, given the number of workers, and for "shift-one" the round."""
        return self.name or " ".join(f"{one}-{other}:{weight!r}" for (one, other), weight in self.edges())

    def edges(self) -> Iterator[tuple[Edge, float]]:
        """All pairs that talk, each once and in order, with their weight."""
        for rank, row in enumerate(self.rows):
            yield from (((rank, other), weight) for other, weight in row if other > rank)

    def neighbors(self, rank: int) -> tuple[int, ...]:
        """The workers that `rank` sends to and hears from, ascending, without itself. Raises ValueError if unknown."""
        return tuple(other for other, _ in self.rows[self._known(rank)])

    def weight(self, rank: int, other: int) -> float:
        """W[rank, other]; 0 where they do not talk. Raises ValueError if either is unknown."""
        if self._known(rank) == self._known(other):
            return self.self_weights[rank]
        row = self.rows[rank]
        place = bisect_left(row, (other,))
        return row[place][1] if place < len(row) and row[place][0] == other else 0.0

    def matrix(self) -> npt.NDArray[np.float64]:
        """W as a new dense array (n, n), float64."""
        dense = np.diag(np.asarray(self.self_weights, dtype=np.float64))
        for rank, row in enumerate(self.rows):
            if row:
                others, weights = zip(*row, strict=True)
                dense[rank, list(others)] = weights
        return dense

    @cached_property
    def rho(self) -> float:
        """The second largest eigenvalue in absolute value: the part of a disagreement that a round leaves standing.

        0 for the full graph, 1 where models do not come together. Dense: O(n^3), once.
        """
        if self.n_workers == 1:
            return 0.0
        rising = np.linalg.eigvalsh(self.matrix())
        return float(min(1.0, max(abs(rising[0]), abs(rising[-2]))))  # the last one is the 1 of the mean

    @property
    def spectral_gap(self) -> float:
        """1 - rho."""
        return 1.0 - self.rho

    def _known(self, rank: int) -> int:
        if not 0 <= rank < self.n_workers:
            raise ValueError(f"Mixing: worker {rank} must be between 0 and {self.n_workers - 1}")
        return rank


@lru_cache(maxsize=16)  # a simulator asks on behalf of each worker, in each round
def _from_text(text: str, n_workers: int, round_: int) -> Mixing:
    if text == SHIFT_ONE:
        return _from_weights(_metropolis(_pairs(n_workers, round_), n_workers), n_workers, name=text)
    if text in _BUILDERS:
        return _on_edges(_BUILDERS[text](n_workers), n_workers, name=text)
    tokens = [_parsed(token, text, n_workers) for token in text.split()]
    edges = [edge for edge, _ in tokens]
    _check_unique(edges, f"topology={text!r}")
    weights = {edge: weight for edge, weight in tokens if weight is not None}
    if not weights:
        return _on_edges(edges, n_workers)
    if len(weights) < len(edges):
        raise ValueError(f"topology={text!r}: either every edge has a weight or none; write them as {EXAMPLE}")
    return _connected(_from_weights(weights, n_workers))


def _parsed(token: str, text: str, n_workers: int) -> tuple[Edge, float | None]:
    pair, colon, number = token.partition(":")
    one, _, other = pair.partition("-")
    if not (one.isdecimal() and other.isdecimal()):
        raise ValueError(
            f"topology={text!r} must be one of {', '.join(GRAPHS)}, or edges such as {EXAMPLE}: "
            f"{token!r} is neither{near_misses(token, list(GRAPHS))}"
        )
    edge = _checked_edge(int(one), int(other), n_workers, f"topology: edge {token!r}")
    if not colon:
        return edge, None
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1:
        raise ValueError(f"topology: edge {token!r}: the weight must be in (0, 1]; leave out an edge that has none")
    return edge, weight


def _checked_edge(one: int, other: int, n_workers: int, where: str) -> Edge:
    for worker in (one, other):
        if not 0 <= worker < n_workers:
            raise ValueError(f"{where}: worker {worker} must be between 0 and {n_workers - 1}, n_workers={n_workers}")
    if one == other:
        raise ValueError(f"{where}: worker {one} need not name itself; its own weight is what the others leave of 1")
    return _sorted(one, other)


def _check_unique(edges: list[Edge], where: str) -> None:
    seen: set[Edge] = set()
    for edge in edges:
        if edge in seen:
            raise ValueError(f"{where}: edge {edge[0]}-{edge[1]} is there twice; an edge goes both ways, keep one")
        seen.add(edge)


def _check_count(n_workers: int) -> None:
    if n_workers < 1:
        raise ValueError(f"topology: n_workers={n_workers} must be at least 1")


def _checked_matrix(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        table = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("from_matrix: W must be a square table of numbers") from None
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
        raise ValueError(f"from_matrix: W must be square, one row and one column a worker, not of shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("from_matrix: W must be finite; it holds inf or NaN")
    i, j = _worst(np.abs(table - table.T))
    if abs(table[i, j] - table[j, i]) > TOLERANCE:
        raise ValueError(
            f"from_matrix: W must be symmetric, but W[{i}, {j}]={table[i, j]:g} and W[{j}, {i}]={table[j, i]:g}; "
            "(W + W.T) / 2 is, if rows and columns both sum to 1"
        )
    i, j = _worst(-table)
    if table[i, j] < -ROUNDING:
        raise ValueError(f"from_matrix: W[{i}, {j}]={table[i, j]:g} must be at least 0; from_graph gives such weights")
    (i,) = _worst(np.abs(table.sum(axis=1) - 1))
    if abs(table[i].sum() - 1) > TOLERANCE:
        raise ValueError(
            f"from_matrix: row {i} sums to {table[i].sum():g} and must sum to 1; "
            f"W[{i}, {i}]={table[i, i]:g} is the self weight to change"
        )
    return table


def _worst(faults: npt.NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(place) for place in np.unravel_index(np.argmax(faults), faults.shape))


def _on_edges(edges: Iterable[Edge], n_workers: int, name: str = "") -> Mixing:
    ordered = sorted(edges)
    name = name or " ".join(f"{one}-{other}" for one, other in ordered)
    return _connected(_from_weights(_metropolis(ordered, n_workers), n_workers, name))


def _metropolis(edges: Iterable[Edge], n_workers: int) -> dict[Edge, float]:
    pairs = list(edges)
    degree = [0] * n_workers
    for one, other in pairs:
        degree[one] += 1
        degree[other] += 1
    return {(one, other): 1 / (1 + max(degree[one], degree[other])) for one, other in pairs}


def _from_weights(weights: Mapping[Edge, float], n_workers: int, name: str = "") -> Mixing:
    rows: list[list[tuple[int, float]]] = [[] for _ in range(n_workers)]
    for (one, other), weight in weights.items():
        rows[one].append((other, weight))
        rows[other].append((one, weight))
    ordered = tuple(tuple(sorted(row)) for row in rows)
    return Mixing(ordered, tuple(_left_of_one(rank, row) for rank, row in enumerate(ordered)), name)


def _left_of_one(rank: int, row: tuple[tuple[int, float], ...]) -> float:
    """The self weight. Equal shares get equal bits, so that full averaging makes the same model everywhere."""
    rest = 1.0 - math.fsum(weight for _, weight in row)
    if rest < -ROUNDING:
        raise ValueError(
            f"topology: the edges of worker {rank} sum to {1 - rest:g}, which leaves it a self weight of {rest:g}; "
            "they must sum to at most 1"
        )
    if rest < ROUNDING:
        return 0.0
    return next((weight for _, weight in row if abs(weight - rest) < ROUNDING), rest)


def _connected(mixing: Mixing) -> Mixing:
    """Itself, once it is known that rho < 1: everybody hears of everybody, and no two halves only swap their models.

    For a symmetric W with no negative weight, these are the two ways to have rho = 1. Raises ValueError for either.
    """
    side = {0: 0}
    queue = [0]
    for rank in queue:
        for other, _ in mixing.rows[rank]:
            if other not in side:
                side[other] = 1 - side[rank]
                queue.append(other)
    if len(side) < mixing.n_workers:
        apart = [rank for rank in range(mixing.n_workers) if rank not in side]
        raise ValueError(
            f"topology: workers {_listed(sorted(side))} never hear of {_listed(apart)} (rho=1); add an edge between"
        )
    parts = [[rank for rank in sorted(side) if side[rank] == part] for part in (0, 1)]
    swaps = all(side[other] != side[rank] for rank, row in enumerate(mixing.rows) for other, _ in row)
    if swaps and not any(mixing.self_weights):
        raise ValueError(
            f"topology: workers {_listed(parts[0])} and {_listed(parts[1])} only swap their models (rho=1), "
            "because nobody keeps a part of its own; give some edges less weight"
        )
    return mixing


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (f", ... ({len(ranks)} in all)" if len(ranks) > 8 else "")
