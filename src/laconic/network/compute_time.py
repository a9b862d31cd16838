"""How long each node computes: equal nodes, slow nodes, and steps that are slow at random.

The random part is the shifted exponential of Lee, Lam, Pedarsani, Papailiopoulos and Ramchandran: Speeding up
distributed machine learning using codes, 2018: a node's usual time plus an exponential tail.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from laconic.hyperparameters import line_of, make_plain, plain_number
from laconic.random_keys import make_key, uniform


@dataclass(frozen=True, kw_only=True)
class ComputeTime:
    """The time of one gradient, by node and step."""

    seconds: float | Mapping[int, float] = 0.0
    """Usual time in seconds, for all nodes or for each by its number."""
    factors: Mapping[int, float] = field(default_factory=dict)
    """Factor of that time for some nodes, by number; 4 takes four times as long."""
    tail_s: float = 0.0
    """Mean of the random time in seconds that is added, sampled for every node and step."""

    def __post_init__(self) -> None:
        self._make_numbers_plain()
        by_node = dict(self.seconds) if isinstance(self.seconds, Mapping) else {None: self.seconds}
        for node, seconds in by_node.items():
            where = "" if node is None else f" of node {node}"
            if not 0 <= seconds < math.inf:
                raise ValueError(f"ComputeTime: seconds={seconds}{where} must be at least 0 and finite (200 ms is 0.2)")
        for node, factor in self.factors.items():
            if not 0 < factor < math.inf:
                raise ValueError(
                    f"ComputeTime: factors has {factor} for node {node}, which must be above 0 and finite "
                    "(4 takes four times as long)"
                )
        if not 0 <= self.tail_s < math.inf:
            raise ValueError(f"ComputeTime: tail_s={self.tail_s} must be at least 0 and finite")

    def _make_numbers_plain(self) -> None:
        """Raise TypeError for what is no number, or a node that is no whole one."""
        make_plain(self, ["tail_s"], "ComputeTime")
        if not isinstance(self.seconds, Mapping):
            make_plain(self, ["seconds"], "ComputeTime")
        if not isinstance(self.factors, Mapping):
            raise TypeError(f"ComputeTime: factors={self.factors!r:.80} must be factors by node, such as {{2: 4.0}}")
        for name in ("seconds", "factors"):
            by_node = getattr(self, name)
            if isinstance(by_node, Mapping):
                plain = {
                    plain_number(node, f"ComputeTime: {name}: node", int): plain_number(
                        of, f"ComputeTime: {name}[{node}]"
                    )
                    for node, of in by_node.items()
                }
                object.__setattr__(self, name, plain)

    def __repr__(self) -> str:
        return line_of(self)

    def check(self, n_nodes: int) -> None:
        """Check that the nodes named are those of a network.

        Raises:
            ValueError: A node of 0 .. `n_nodes` - 1 has no time, or a node is named that does not exist.
        """
        known = range(n_nodes)
        own = dict(self.seconds) if isinstance(self.seconds, Mapping) else dict.fromkeys(known, 0.0)
        for name, nodes in (("seconds", own), ("factors", self.factors)):
            for node in nodes:
                if node not in known:
                    raise ValueError(f"ComputeTime: {name} names node {node}, which must be in 0 .. {n_nodes - 1}")
        missing = [node for node in known if node not in own]
        if missing:
            raise ValueError(f"ComputeTime: seconds names no time for node {missing[0]}; give one for each node")

    @property
    def is_equal(self) -> bool:
        """Whether all nodes take one time, in all steps."""
        return not (isinstance(self.seconds, Mapping) or self.factors or self.tail_s)

    def ns(self, node: int, step: int, *, seed: int = 0) -> int:
        """Return how long a node computes in a step.

        Args:
            node: Number of the node.
            step: Number of the step.
            seed: Seed of the random part; equal arguments give equal times.

        Returns:
            Whole nanoseconds.
        """
        seconds = self.seconds[node] if isinstance(self.seconds, Mapping) else self.seconds
        seconds *= self.factors.get(node, 1.0)
        if self.tail_s:
            seconds -= self.tail_s * math.log(1.0 - uniform(make_key(seed, "worker", node, step, "compute time")))
        return round(seconds * 1e9)
