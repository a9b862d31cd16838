"""Sites: groups of nodes, each joined to the others by one line that all its nodes share."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.hyperparameters import line_of, plain_number
from laconic.network.link import Link


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Nodes at several places, numbered site by site.

    A message from one site to another crosses the line of either. Between two sites these are one and the same, full
    duplex. Messages share it: it carries `line.bytes_per_s` in each direction, whoever sends. Its latency adds to that
    of the nodes' own links, and occupies nothing.
    """

    sizes: tuple[int, ...]
    """The number of nodes at each site. A node beyond the last, such as a dedicated server, is at the first site."""
    line: Link
    """The line of each site to the others."""

    def __post_init__(self) -> None:
        sizes = tuple(plain_number(size, "Sites: sizes: a size", int) for size in self.sizes)
        object.__setattr__(self, "sizes", sizes)
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"Sites: sizes={sizes} must be two sizes or more, each at least 1, such as (4, 4)")
        if self.line.is_random or self.line.down_bytes_per_s is not None:
            raise ValueError(f"Sites: line={self.line!r} must have one bandwidth, no jitter and no loss")

    def __repr__(self) -> str:
        return line_of(self)

    def of_nodes(self, n_nodes: int) -> list[int]:
        """Return the number of each node's site.

        Raises:
            ValueError: There are fewer nodes than the sites have.
        """
        sites = [site for site, size in enumerate(self.sizes) for _ in range(size)]
        if len(sites) > n_nodes:
            raise ValueError(f"Sites: sizes={self.sizes} have {len(sites)} nodes, and the network has {n_nodes}")
        return sites + [0] * (n_nodes - len(sites))
