"""SSGD-MV: all workers send the same coordinates, the most voted for.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, Algorithm 1.
Paper -> here: b -> the votes, m -> the mask, e -> me.memory["debt"]; the rest as in `ssgd_topk.py`.
Differs: equal votes are ordered by a keyed hash, or by index. A worker that was not heard in one of the two exchanges
owes its step. Values that are not quantized add up, so without a server they go through the engine's all-reduce.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.compressors import dense
from laconic.contract import Exchange, Inbox, Reply, Server, Step, Worker, algorithm
from laconic.errors import ContractError
from laconic.hyperparameters import knob
from laconic.kernels.api import hash_at, most_voted, take_at, tally, top_k
from laconic.wire import Packet, Positions, Sparse, paper_position_bits


@algorithm("ssgd-mv")
@dataclass(frozen=True, kw_only=True)
class SSGDMV(SSGDTopK):
    """Vote for coordinates, then send the values of the winners."""

    source: ClassVar[str] = "Ozfatura, Ozfatura & Gunduz, Distributed Sparse SGD with Majority Voting, Algorithm 1"
    adaptive: ClassVar[bool] = False

    ties: str = knob("random", "which of equally voted coordinates win", choices=("random", "index"))

    def exchanges(self, d: int, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (
            Exchange(count=d, name="positions"),
            Exchange(count=self.entries(d), name="values", adds=self.bits == 32),
        )

    def work(self, me: Worker) -> Step:
        if self.dense_in(me.round):
            return (yield dense(me.change)).dense()
        wish = me.change_plus(me.memory["debt"])  # line 9
        votes = self.votes(me, wish)
        reply = yield self.positions(votes, me.count)
        return (yield from self.send_values(me, wish, reply))

    def votes(self, me: Worker, wish: Tensor) -> Tensor:
        """The worker's K coordinates: (K,) int64, ascending."""
        return top_k(wish, self.entries(me.count))

    def positions(self, indices: Tensor, d: int) -> Positions:
        """A packet of them."""
        return Positions(indices=indices, count=d, code=self.code)

    def send_values(self, me: Worker, wish: Tensor, reply: Reply) -> Step:
        """The second exchange: `wish` (d,) on the mask that came; returns the change (d,)."""
        mask = indices_of(reply.packet, "the server", self.entries(me.count))
        sent = self.quantized(take_at(wish, mask))
        reply = yield sent
        me.memory["debt"] = self.unsent(wish, mask, sent) if reply.heard else wish  # lines 20-22
        return Sparse(indices=mask, values=dense(reply.dense()), count=me.count)

    def serve(self, hub: Server, inbox: Inbox) -> Packet:
        if hub.exchange == 0 and not self.dense_in(hub.round):
            return self.positions(self.mask(hub, *self.votes_for(hub, self.lists(hub, inbox))), hub.count)  # 14-15
        return dense(inbox.sum() / inbox.n_workers)  # line 26; whoever was not heard owes its share

    def lists(self, hub: Server, inbox: Inbox) -> list[Tensor]:
        """The coordinates that each worker votes for: (K,) int64, ascending."""
        return [indices_of(packet, f"worker {rank}", self.entries(hub.count)) for rank, packet in inbox.items()]

    def votes_for(self, hub: Server, lists: list[Tensor]) -> tuple[Tensor, Tensor]:
        """At least K coordinates, ascending, and the votes for each: (n,) int64 both. All that have one are there."""
        voted, votes = tally(lists)
        if voted.numel() >= self.entries(hub.count):
            return voted, votes
        return torch.arange(hub.count), votes.new_zeros(hub.count).index_copy_(0, voted, votes)  # some got lost

    def mask(self, hub: Server, voted: Tensor, votes: Tensor) -> Tensor:
        """K of the coordinates `voted` (n,), which have so many `votes` (n,), the most: (K,) int64, ascending."""
        random = self.ties == "random"
        order = hash_at(voted, hub.key("ties")) if random else voted.int()  # no two coordinates share a hash
        return voted[most_voted(votes, order, self.entries(hub.count))]

    def charge(self, way: Literal["up", "down"], packet: Packet) -> float:
        return packet.paper_bits

    def paper_bits(self, d: int, layers: tuple[int, ...] = (), n_workers: int = 10) -> tuple[float, float]:
        entries = self.entries(d)
        where = paper_position_bits(d, entries)
        return where + self.bits * entries, where + 32 * entries


def indices_of(packet: Packet, who: str, entries: int) -> Tensor:
    """The coordinates in a packet of positions. Raises ContractError for another packet or number of them."""
    if not isinstance(packet, Positions) or packet.indices.numel() != entries:
        found = f"{packet.indices.numel()} positions" if isinstance(packet, Positions) else f"a packet of {packet.name}"
        raise ContractError(
            f"{who} sent {found}; due was a vote list of {entries}. Do all ranks have the same density and model?"
        )
    return packet.indices
