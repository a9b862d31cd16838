"""SSGD-MV: all workers send the same coordinates, those with the most votes.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, arXiv 2011.06495, Algorithm 1.
Paper -> here: b -> the votes, m -> the mask, e -> me.memory["residual"]; the rest as in `ssgd_topk.py`.
Equations:
  worker: p = theta_{t,H} - theta_t + e; sends its votes b = the K largest |p|
  server: answers m = the K coordinates with the most votes
  worker: sends Q(p) on m; e <- p - Q(p) on m, and p elsewhere
  step: theta <- theta + mean of Q(p) on m
Differs: equal votes are ordered by a keyed hash, or by index. A worker whose packet is not delivered in one of the two
exchanges keeps its step as residual. Values that are not quantized add, so without a server they are all-reduced.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.compressors import dense
from laconic.contract import Accept, Accepted, Exchange, Inbox, ModelSpec, Reply, Server, Side, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import hash_at, take_at, top_voted, vote_counts
from laconic.wire import Packet, Positions, Sparse, paper_position_bits


@algorithm("ssgd-mv")
@dataclass(frozen=True, kw_only=True)
class SSGDMV(SSGDTopK):
    """Vote for coordinates, then send the values of the winners."""

    source: ClassVar[str] = "Ozfatura, Ozfatura & Gunduz, Distributed Sparse SGD with Majority Voting, Algorithm 1"
    adaptive: ClassVar[bool] = False
    counts_zeros: ClassVar[bool] = True

    ties: str = hyperparameter(
        "random",
        "which of the coordinates with equally many votes win: random ones, or those of lowest index",
        choices=("random", "index"),
    )

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (
            Exchange(
                count=spec.d, offset=spec.offset, name="positions",
                up=self.accept_votes(spec), down=self.accept_positions(spec),
            ),
            Exchange(
                count=self.n_selected(spec.d), name="values", adds=self.bits == 32, up=self.accept_quantized()
            ),
        )  # fmt: skip

    def accept_positions(self, spec: ModelSpec) -> Accept:
        """Return what a peer accepts as what `positions` returns of K coordinates."""
        return Accept(Positions, n_selected=self.n_selected(spec.d), code=self.code)

    def accept_votes(self, spec: ModelSpec) -> Accepted:
        """Return what the server accepts as votes."""
        return self.accept_positions(spec)

    def work(self, me: Worker) -> Step:
        if self.dense_in(me.round):
            return (yield dense(me.change, offset=me.offset)).dense()
        corrected, votes = self.corrected_and_largest(me)  # line 9
        reply = yield self.positions(me, votes)
        return (yield from self.send_values(me, corrected, reply))

    def positions(self, side: Side, indices: Tensor) -> Positions:
        """Return a packet of these indices (K,) of a side's coordinates."""
        return Positions(indices=indices, count=side.count, offset=side.offset, code=self.code)

    def send_values(self, me: Worker, corrected: Tensor, reply: Reply) -> Step:
        """Send `corrected` (d,) on the received mask, in the second exchange; return the change (d,), sparse."""
        mask = cast("Positions", reply.packet).indices.to(corrected.device)
        sent = self.quantized(take_at(corrected, mask))
        reply = yield sent
        me.memory["residual"] = self.unsent(corrected, mask, sent) if reply.delivered else corrected  # lines 20-22
        return Sparse(indices=mask, values=dense(reply.dense()), count=me.count, offset=me.offset)

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        if server.exchange == 0 and not self.dense_in(server.round):
            mask = self.mask(server, *self.votes_for(server, self.lists(server, inbox)))
            return self.positions(server, mask)  # 14-15
        offset = server.offset if self.dense_in(server.round) else 0  # the values' coordinates are those of the mask
        mean = inbox.sum() / inbox.n_workers  # line 26; by all workers: what was not delivered stays residual
        return dense(mean, offset=offset)

    def lists(self, server: Server, inbox: Inbox) -> list[Tensor]:
        """Return the coordinates that each worker votes for: (K,) int64 each, ascending."""
        return [cast("Positions", packet).indices for packet in inbox.values()]

    def vote_agreement(self, server: Server, inbox: Inbox) -> tuple[int, int] | None:
        if server.exchange or self.dense_in(server.round):
            return None
        lists = [listed for listed in self.lists(server, inbox) if listed.numel()]
        if not lists:
            return None
        voted, votes = vote_counts(lists)
        return int(votes.sum()), len(lists) * voted.numel()

    def votes_for(self, server: Server, lists: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return every coordinate with a vote, at least K, ascending, and the votes for each: both (n,) int64."""
        voted, votes = vote_counts(lists)
        if voted.numel() >= self.n_selected(server.count):
            return voted, votes
        return torch.arange(server.count), votes.new_zeros(server.count).index_copy_(
            0, voted, votes
        )  # some lists were lost

    def mask(self, server: Server, voted: Tensor, votes: Tensor) -> Tensor:
        """Return the K coordinates of `voted` (n,) with the most `votes` (n,): (K,) int64, ascending."""
        random = self.ties == "random"
        order = (
            hash_at(voted + server.offset, server.key("ties")) if random else voted.int()
        )  # no two coordinates share a hash
        return voted[top_voted(votes, order, self.n_selected(server.count))]

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        return packet.paper_bits

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        n_selected = self.n_selected(spec.d)
        where = paper_position_bits(spec.d, n_selected)
        return where + self.bits * n_selected, where + 32 * n_selected
