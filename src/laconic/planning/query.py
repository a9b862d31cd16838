"""What a plan is asked: a model, workers, and the network between them."""

from dataclasses import dataclass, replace

from laconic.contract import ModelSpec
from laconic.lab.defaults import MAX_PLANNED_WORKERS, MAX_VECTOR
from laconic.network import Link, Network, Sites
from laconic.planning.candidate import Candidate, MeasuredLinks

_LATENCIES_S = tuple(10.0**power for power in range(-6, 3))


@dataclass(frozen=True, kw_only=True)
class Query:
    """A model, a number of workers, and the links of the nodes.

    Raises:
        ValueError: A number is out of range.
    """

    spec: ModelSpec
    """The model's parameters: their shapes if they are known, otherwise one vector."""
    n_workers: int
    link: Link
    """The link of every node."""
    latency_given: bool = True
    """Whether the latency of `link` is known. Otherwise it is 0, and speed-ups are upper bounds."""
    compute_s: float | None = None
    """Seconds of one gradient. None if they are not known: they count as 0, and speed-ups are upper bounds."""
    local_steps: int = 1
    """Local steps per exchange, for methods that take changes."""
    sites: Sites | None = None
    """Where the workers are; None for one place."""
    measured: MeasuredLinks | None = None
    """What the links carry under the traffic of each layout, where it was measured."""
    ranks_per_core: float = 1.0
    """Ranks on one machine over its processor cores. Above 1 they encode and decode in turns."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_parameters <= MAX_VECTOR:
            raise ValueError(f"n_parameters={self.n_parameters} must be in 1 .. {MAX_VECTOR}, the range of one frame")
        if not 2 <= self.n_workers <= MAX_PLANNED_WORKERS:
            raise ValueError(f"n_workers={self.n_workers} must be in 2 .. {MAX_PLANNED_WORKERS}")
        if self.local_steps < 1:
            raise ValueError(f"local_steps={self.local_steps} must be at least 1; 1 exchanges after every step")
        if self.sites is not None and sum(self.sites.sizes) != self.n_workers:
            raise ValueError(
                f"sites={self.sites.sizes} have {sum(self.sites.sizes)} workers, and n_workers={self.n_workers}"
            )

    @property
    def n_parameters(self) -> int:
        """The number of parameters."""
        return self.spec.d

    @property
    def bytes_per_s(self) -> float:
        """The bandwidth that is searched for break-even points, in bytes per second: of the line between sites, or of
        what each node sends.
        """
        return self.link.bytes_per_s if self.sites is None else self.sites.line.bytes_per_s

    @property
    def slowest_bytes_per_s(self) -> float:
        """The lowest bandwidth on the way from one worker to another, in bytes per second."""
        return min(self.link.slower_bytes_per_s, self.bytes_per_s)

    def at(self, bytes_per_s: float) -> "Query":
        """Return the query at another of the bandwidths that are searched. Download and measured links keep in step."""
        if bytes_per_s == self.bytes_per_s:
            return self
        if self.sites is not None:
            line = replace(self.sites.line, bytes_per_s=bytes_per_s)
            return replace(self, sites=replace(self.sites, line=line))
        factor = bytes_per_s / self.link.bytes_per_s
        measured = None if self.measured is None else self.measured.scaled(factor)
        return replace(self, link=replace(self.link.scaled(factor), bytes_per_s=bytes_per_s), measured=measured)

    def at_possible_latencies(self) -> list["Query"]:
        """Return the queries with the latencies that the link may have: its own, or a range where it is not known."""
        if self.latency_given:
            return [self]
        return [self, *(replace(self, link=replace(self.link, latency_s=latency_s)) for latency_s in _LATENCIES_S)]

    def step_s(self, candidate: Candidate) -> float:
        """Return the seconds of one step of a method on this network."""
        return candidate.step_s(self.link, self.sites, self.measured)

    def ring(self) -> Network:
        """Return the network of the workers in the engine's all-reduce, at rest."""
        link = self.link if self.measured is None else self.measured.ring
        return Network(self.n_workers, link, sites=None if self.measured is not None else self.sites)
