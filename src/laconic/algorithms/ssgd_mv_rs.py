"""SSGD-MV-RS: the mask is sampled at random, in proportion to the votes.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, arXiv 2011.06495, section 2, random
selection (Algorithm 1, line 15), and section 4.2.
Paper -> here: as in `ssgd_mv.py`.
Equations:
  worker: p = theta_{t,H} - theta_t + e; sends its votes b = the K largest |p|
  server: answers m = K coordinates sampled with weights c_i, the numbers of votes
  worker: sends Q(p) on m; e <- p - Q(p) on m, and p elsewhere
  step: theta <- theta + mean of Q(p) on m
Differs: K coordinates are sampled without replacement, each in proportion to its vote count c_i: the K smallest of
E_i / c_i for exponential variables E_i (exponential clocks). The variables are keyed, so a run can be repeated.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.contract import Server, algorithm
from laconic.kernels.api import bottom_k, hash_at


@algorithm("ssgd-mv-rs")
@dataclass(frozen=True, kw_only=True)
class SSGDMVRS(SSGDMV):
    """Vote for coordinates, draw winners by votes, then send their values."""

    source: ClassVar[str] = "Ozfatura, Ozfatura & Gunduz, Distributed Sparse SGD with Majority Voting, 2"

    def mask(self, server: Server, voted: Tensor, votes: Tensor) -> Tensor:
        clocks = (
            exponentials(voted + server.offset, server.key("clocks")) / votes.double()
        )  # those without a vote come last
        return voted[bottom_k(clocks, self.n_selected(server.count))]


def exponentials(positions: Tensor, key: int) -> Tensor:
    """Return a keyed exponential variable for each of the positions (n,): (n,) float64, above 0."""
    words = [hash_at(positions, key ^ word).long() & 0xFFFFFFFF for word in (0, 1)]
    uniform = ((words[0] << 21 | words[1] >> 11).double() + 0.5) / 2**53
    return -uniform.log()
