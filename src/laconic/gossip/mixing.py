"""The mixing matrix W of decentralized SGD: which workers exchange models, and the weight of each model.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, sections 5.1 and 5.2;
weights of a graph: Xiao, Boyd and Lall: A Scheme for Robust Distributed Sensor Fusion, IPSN 2005, Metropolis weights.
Paper -> here: W -> Mixing, rho -> Mixing.rho, 1 - rho -> spectral_gap; W_1 is "full", W_2 is "ring".
Differs: rho(W_2) is close to 1 - 4 pi^2 / (3 N^2), where 16 is printed for 4; rho(W_1) is 0, where the text says 1.
"shift-one" is a round-robin tournament, in which all workers meet; Bagua's only pairs two fixed groups.

Each edge has the weight 1 / (1 + the larger degree of its two workers). If all degrees are equal, a worker and its
neighbors have equal weights: 1/3 on a ring, 1/N on the full graph, 1/2 in a pair.
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
from laconic.hyperparameters import near_misses, plain_number

ROUNDING = 1e-12  # weights that differ by less are equal, and smaller ones are 0
TOLERANCE = 1e-6  # how far a given matrix may be from symmetric, and its rows from summing to 1
EXAMPLE = "'0-1 1-2 2-0' or, with weights, '0-1:0.25 1-2:0.25 2-0:0.25'"


class Graph(Protocol):
    """The part of a networkx graph that is read."""

    @property
    def nodes(self) -> Iterable[Any]:
        """The workers, 0 to n - 1."""

    @property
    def edges(self) -> Iterable[Any]:
        """Pairs of workers."""


@dataclass(frozen=True)
class Mixing:
    """A symmetric, doubly stochastic W (n, n), float64, stored as each worker's neighbors and weights."""

    rows: tuple[tuple[tuple[int, float], ...], ...]
    """For each worker: (neighbor, weight > 0), ascending, without the worker itself."""
    self_weights: tuple[float, ...]
    """For each worker: 1 less the weights of its neighbors."""
    name: str = field(default="", compare=False)
    """The name of the graph, or its edges if the weights follow from them."""

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for what is no W, with the worker's number."""
        if not isinstance(self.rows, tuple) or not all(isinstance(row, tuple) for row in self.rows):
            raise TypeError(
                f"Mixing: rows={self.rows!r:.80} must be a tuple of rows; from_text and from_matrix make one"
            )
        n = len(self.rows)
        if not n or not isinstance(self.self_weights, tuple) or len(self.self_weights) != n:
            raise ValueError(
                f"Mixing: self_weights={self.self_weights!r:.80} must be one weight for each of {n} workers"
            )
        rows = tuple(
            tuple((_integer(rank, other, n), _weight(rank, weight, minimum=0.0)) for other, weight in row)
            for rank, row in enumerate(self.rows)
        )
        object.__setattr__(self, "rows", rows)
        own = tuple(_weight(rank, weight, minimum=-ROUNDING) for rank, weight in enumerate(self.self_weights))
        object.__setattr__(self, "self_weights", own)
        for rank, row in enumerate(rows):
            others = [other for other, _ in row]
            if others != sorted({*others} - {rank}):
                raise ValueError(f"Mixing: rows[{rank}] names the workers {others}; each neighbor once, ascending")
            total = own[rank] + math.fsum(weight for _, weight in row)
            if abs(total - 1) > TOLERANCE:
                raise ValueError(f"Mixing: the weights of worker {rank} sum to {total:g}, and must sum to 1")
            for other, weight in row:
                if abs(self.weight(other, rank) - weight) > TOLERANCE:
                    raise ValueError(
                        f"Mixing: W must be symmetric, but W[{rank}, {other}] and W[{other}, {rank}] differ"
                    )

    def __repr__(self) -> str:
        if self.name != SHIFT_ONE:  # that text alone does not say which round's it is
            return f"Mixing.from_text({self.text!r}, {self.n_workers})"
        return f"Mixing(rows={self.rows!r}, self_weights={self.self_weights!r}, name={self.name!r})"

    @classmethod
    def from_text(cls, text: str, n_workers: int, round_: int = 0) -> "Mixing":
        """Return the W of one round from text: a name of GRAPHS, or edges such as "0-1 1-2 2-0".

        Only "shift-one" depends on the round. Its W of one round is not connected; that of `over_cycle` is.

        Raises:
            ValueError: for an unknown name, a bad edge, a number of workers for which the graph does not exist, and a
                W under which models do not converge to their mean.
        """
        _check_count(n_workers)
        return _from_text(text, n_workers, round_ % cycle_length(text, n_workers))

    @classmethod
    def over_cycle(cls, text: str, n_workers: int) -> "Mixing":
        """Return the mean W of a cycle of rounds, which is `from_text` for all but "shift-one". Raises as that does."""
        if text != SHIFT_ONE:
            return cls.from_text(text, n_workers)
        _check_count(n_workers)
        length = cycle_length(text, n_workers)
        meetings = Counter(edge for round_ in range(length) for edge in _pairs(n_workers, round_))
        return _connected(_from_weights({edge: 0.5 * n / length for edge, n in meetings.items()}, n_workers))

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> "Mixing":
        """Return W from a matrix (n, n). Self weights are computed from the others, so that rounds keep the mean model.

        Raises:
            ValueError: if the matrix is not square, finite, symmetric and free of negative weights, if a row does not
                sum to 1, or if models do not converge to their mean under it.
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
        """Return Metropolis weights on an undirected networkx graph with nodes 0 to n - 1. Attributes are not read.

        Raises:
            ValueError: for other nodes, directed graphs, self-loops, double edges and graphs that are not connected.
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
            raise ValueError(
                "from_graph: the graph must be undirected, since W is symmetric; use graph.to_undirected()"
            )
        edges = [_checked_edge(int(one), int(other), n_workers, "from_graph") for one, other, *_ in graph.edges]
        _check_unique(edges, "from_graph")
        return _on_edges(edges, n_workers)

    @property
    def n_workers(self) -> int:
        """N, the number of rows and columns."""
        return len(self.rows)

    @cached_property
    def text(self) -> str:
        """The text from which `from_text` makes this W, given the number of workers and, for "shift-one", the round."""
        return self.name or " ".join(f"{one}-{other}:{weight!r}" for (one, other), weight in self.edges())

    def edges(self) -> Iterator[tuple[Edge, float]]:
        """Yield every edge once, in order, with its weight."""
        for rank, row in enumerate(self.rows):
            yield from (((rank, other), weight) for other, weight in row if other > rank)

    def neighbors(self, rank: int) -> tuple[int, ...]:
        """Return the workers that `rank` exchanges models with, ascending. Raises ValueError for an unknown rank."""
        return tuple(other for other, _ in self.rows[self._known(rank)])

    def weight(self, rank: int, other: int) -> float:
        """Return W[rank, other]; 0 where there is no edge. Raises ValueError for an unknown rank."""
        if self._known(rank) == self._known(other):
            return self.self_weights[rank]
        row = self.rows[rank]
        place = bisect_left(row, (other,))
        return row[place][1] if place < len(row) and row[place][0] == other else 0.0

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return W as a new dense array (n, n), float64."""
        dense = np.diag(np.asarray(self.self_weights, dtype=np.float64))
        for rank, row in enumerate(self.rows):
            if row:
                others, weights = zip(*row, strict=True)
                dense[rank, list(others)] = weights
        return dense

    @cached_property
    def rho(self) -> float:
        """The second largest absolute value of an eigenvalue: a round multiplies disagreement by this factor or less.

        0 for the full graph, 1 where models do not converge to their mean. Computed once, in O(n^3).
        """
        if self.n_workers == 1:
            return 0.0
        rising = np.linalg.eigvalsh(self.matrix())
        return float(min(1.0, max(abs(rising[0]), abs(rising[-2]))))  # the last eigenvalue, 1, is that of the mean

    @property
    def spectral_gap(self) -> float:
        """1 - rho."""
        return 1.0 - self.rho

    def _known(self, rank: int) -> int:
        if not 0 <= rank < self.n_workers:
            raise ValueError(f"Mixing: worker {rank} must be between 0 and {self.n_workers - 1}")
        return rank


def _integer(rank: int, other: object, n_workers: int) -> int:
    worker: int = plain_number(other, f"Mixing: a neighbor of worker {rank}", int)
    if not 0 <= worker < n_workers:
        raise ValueError(f"Mixing: rows[{rank}] names worker {worker}, which must be in 0 .. {n_workers - 1}")
    return worker


def _weight(rank: int, value: object, *, minimum: float) -> float:
    weight: float = plain_number(value, f"Mixing: a weight of worker {rank}")
    if not minimum <= weight <= 1 + ROUNDING:
        raise ValueError(f"Mixing: a weight of worker {rank} is {weight}, which must be in [0, 1]")
    return weight


@lru_cache(maxsize=16)  # the simulator calls it for each worker in each round
def _from_text(text: str, n_workers: int, round_: int) -> Mixing:
    if text == SHIFT_ONE:
        return _from_weights(_metropolis(_pairs(n_workers, round_), n_workers), n_workers, name=text)
    if text in _BUILDERS:
        return _on_edges(_BUILDERS[text](n_workers), n_workers, name=text)
    tokens = [_parsed(token, text, n_workers) for token in text.split()]
    edges = [edge for edge, _ in tokens]
    _check_unique(edges, f"graph={text!r}")
    weights = {edge: weight for edge, weight in tokens if weight is not None}
    if not weights:
        return _on_edges(edges, n_workers)
    if len(weights) < len(edges):
        raise ValueError(f"graph={text!r}: either every edge has a weight or none; write them as {EXAMPLE}")
    return _connected(_from_weights(weights, n_workers))


def _parsed(token: str, text: str, n_workers: int) -> tuple[Edge, float | None]:
    pair, colon, number = token.partition(":")
    one, _, other = pair.partition("-")
    if not (one.isdecimal() and other.isdecimal()):
        raise ValueError(
            f"graph={text!r} must be one of {', '.join(GRAPHS)}, or edges such as {EXAMPLE}: "
            f"{token!r} is neither{near_misses(token, list(GRAPHS))}"
        )
    edge = _checked_edge(int(one), int(other), n_workers, f"graph: edge {token!r}")
    if not colon:
        return edge, None
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1:
        raise ValueError(f"graph: edge {token!r}: the weight must be in (0, 1]; leave out an edge of weight 0")
    return edge, weight


def _checked_edge(one: int, other: int, n_workers: int, where: str) -> Edge:
    for worker in (one, other):
        if not 0 <= worker < n_workers:
            raise ValueError(f"{where}: worker {worker} must be between 0 and {n_workers - 1}, n_workers={n_workers}")
    if one == other:
        raise ValueError(f"{where}: worker {one} cannot have an edge to itself; its self weight is 1 less the others")
    return _sorted(one, other)


def _check_unique(edges: list[Edge], where: str) -> None:
    seen: set[Edge] = set()
    for edge in edges:
        if edge in seen:
            raise ValueError(
                f"{where}: edge {edge[0]}-{edge[1]} is given twice; an edge has no direction, so give it once"
            )
        seen.add(edge)


def _check_count(n_workers: int) -> None:
    if n_workers < 1:
        raise ValueError(f"graph: n_workers={n_workers} must be at least 1")


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
        raise ValueError(
            f"from_matrix: W[{i}, {j}]={table[i, j]:g} must be at least 0; Mixing.from_graph makes such weights"
        )
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
    """Return the self weight, with the bits of an equal weight in the row: full averaging gives all the same model."""
    rest = 1.0 - math.fsum(weight for _, weight in row)
    if rest < -ROUNDING:
        raise ValueError(
            f"graph: the edges of worker {rank} sum to {1 - rest:g}, which leaves it a self weight of {rest:g}; "
            "they must sum to at most 1"
        )
    if rest < ROUNDING:
        return 0.0
    return next((weight for _, weight in row if abs(weight - rest) < ROUNDING), rest)


def _connected(mixing: Mixing) -> Mixing:
    """Return `mixing` if rho < 1: it is connected, and there are no two groups that only swap their models.

    For a symmetric W without negative weights, these are the two ways to have rho = 1. Raises ValueError for either.
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
            f"graph: workers {_listed(sorted(side))} are not connected to {_listed(apart)} (rho=1); add an edge between"
        )
    parts = [[rank for rank in sorted(side) if side[rank] == part] for part in (0, 1)]
    swaps = all(side[other] != side[rank] for rank, row in enumerate(mixing.rows) for other, _ in row)
    if swaps and not any(mixing.self_weights):
        raise ValueError(
            f"graph: workers {_listed(parts[0])} and {_listed(parts[1])} only swap their models (rho=1), "
            "because no worker has a self weight; give some edges less weight"
        )
    return mixing


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (f", ... ({len(ranks)} in all)" if len(ranks) > 8 else "")
