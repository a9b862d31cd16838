"""SSGD-MV-AD: each worker's list of votes changes little, so only what was added and dropped is sent.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, arXiv 2011.06495, Algorithm 2, add-drop.
Paper -> here: b_n -> me.memory["votes"], K_ad -> swaps, phi_ad -> swap_density, the vote counts ->
recomputed from the workers' lists, server.memory["votes.<rank>"]; the rest as in `ssgd_mv.py`.
Equations:
  worker: p = theta_{t,H} - theta_t + e; swaps K_ad of its votes b_n; sends what is added and what is dropped
  server: answers m = the K coordinates with the most votes
  worker: sends Q(p) on m; e <- p - Q(p) on m, and p elsewhere
  step: theta <- theta + mean of Q(p) on m
Differs: added are the largest |corrected gradient| that are not in the list (printed lines 11-12), dropped the smallest
in the list that are not among the K largest (13-14); the print has their names the other way round. The initial list is
sent in full, so that the first round, 0.41 d by default, is the most that a round takes; later ones take at most
0.344 d, the paper's figure. What is dropped is named by its index in the list, which the server has too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.compressors import dense, n_selected_for
from laconic.contract import Accept, Accepted, Inbox, ModelSpec, Rule, Server, Slot, Step, Worker, algorithm
from laconic.errors import ContractError
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import bottom_k, list_difference, revised_list, take_at, top_k
from laconic.wire import Packet, Positions, VoteChange, paper_position_bits


@algorithm("ssgd-mv-ad")
@dataclass(frozen=True, kw_only=True)
class SSGDMVAD(SSGDMV):
    """Vote by changes to a list, then send the values of the winners."""

    source: ClassVar[str] = "Ozfatura, Ozfatura & Gunduz, Distributed Sparse SGD with Majority Voting, Algorithm 2"
    adaptive: ClassVar[bool] = True
    test_settings: ClassVar[dict[str, float]] = {"density": 0.25, "swap_density": 0.1}

    swap_density: float = hyperparameter(
        1e-3, "phi_ad, largest share of the coordinates that is added to a list in a round", within="[0, 1]"
    )

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        return {**super().worker_slots, "votes": self._list_slot}

    @property
    def server_slots(self) -> Mapping[str, Slot]:
        return {"votes.<rank>": self._list_slot}

    @property
    def _list_slot(self) -> Slot:
        # A new worker has no list, here and at the server, and sends its first one in full.
        return Slot(
            rule=Rule.PER_WORKER, dtype=torch.int64, length=lambda spec: self.n_selected(spec.d), values="indices"
        )

    def with_density(self, density: float) -> SSGDMV:
        """See `SSGDTopK`. In a warm-up the votes are sent in full: a list begins once its length stays."""
        return SSGDMV(
            density=density, bits=self.bits, code=self.code, rounding=self.rounding, ties=self.ties,
            residual_at_decay=self.residual_at_decay,
        )  # fmt: skip

    def swaps(self, d: int) -> int:
        """Return K_ad, the largest number of coordinates that are swapped in a round."""
        return min(n_selected_for(self.swap_density, d, self.rounding), self.n_selected(d))

    def accept_votes(self, spec: ModelSpec) -> Accepted:
        k, swaps = self.n_selected(spec.d), self.swaps(spec.d)
        change = Accept(VoteChange, listed=k, n_added=range(swaps + 1), code=self.code)
        return self.accept_positions(spec), change

    def work(self, me: Worker) -> Step:
        if self.dense_in(me.round):
            return (yield dense(me.change, offset=me.offset)).dense()
        corrected, best = self.corrected_and_largest(me)
        if "votes" in me.memory:
            listed, change = self._revised(me, corrected, best)
            reply = yield change
        else:
            listed = best
            reply = yield self.positions(me, listed)
        if reply.delivered:
            me.memory["votes"] = listed
        return (yield from self.send_values(me, corrected, reply))

    def _revised(self, me: Worker, corrected: Tensor, best: Tensor) -> tuple[Tensor, VoteChange]:
        """Return the new list, (K,) int64 ascending, and its difference from the last one (lines 10-15)."""
        old = me.memory["votes"]
        entering, leaving = list_difference(best, old)  # coordinates, and indices in the list
        swaps = min(self.swaps(me.count), entering.numel())
        added = dropped = old[:0]
        if swaps:
            added = entering[top_k(take_at(corrected, entering), swaps)]
            dropped = leaving[bottom_k(take_at(corrected, old[leaving]), swaps)]
        change = VoteChange(
            added=added, dropped=dropped, count=me.count, offset=me.offset, listed=old.numel(), code=self.code
        )
        return _applied(old, change), change

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        if server.exchange == 0 and not self.dense_in(server.round):
            self._take_lists(server, inbox)
        return super().serve(server, inbox)

    def _take_lists(self, server: Server, inbox: Inbox) -> None:
        """Stage the workers' new lists."""
        lists = {rank: _list_after(packet, _list_of(server, rank), rank) for rank, packet in inbox.items()}
        for rank, listed in lists.items():
            server.memory[f"votes.{rank}"] = listed

    def lists(self, server: Server, inbox: Inbox) -> list[Tensor]:
        return [
            _list_of(server, rank) for rank in range(inbox.n_workers)
        ]  # where nothing was delivered, the old list counts

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        listed, down = super().paper_bits(spec)  # of the first round
        changed = 2 * paper_position_bits(spec.d, self.swaps(spec.d)) + self.bits * self.n_selected(spec.d)
        return max(listed, changed), down


def _list_of(server: Server, rank: int) -> Tensor:
    """Return the server's copy of worker `rank`'s list: (K,) int64, ascending; empty before the first."""
    name = f"votes.{rank}"
    return server.memory[name] if name in server.memory else torch.empty(0, dtype=torch.int64)


def _list_after(packet: Packet, old: Tensor, rank: int) -> Tensor:
    """Return worker `rank`'s list after its packet. Raises ContractError for a change that does not fit."""
    if not isinstance(packet, VoteChange):
        return cast("Positions", packet).indices
    if packet.listed != old.numel():
        raise ContractError(
            f"worker {rank} sent a change of a list of {packet.listed}; its list here has {old.numel()}. Was its state "
            "saved in another round?"
        )
    new = _applied(old, packet)
    if new.numel() != old.numel() - packet.dropped.numel() + packet.added.numel():
        raise ContractError(f"worker {rank} adds coordinates that are in its list already")
    return new


def _applied(old: Tensor, change: VoteChange) -> Tensor:
    """Return the list (K,) after a change, ascending; shorter if the change adds what is in it already."""
    return revised_list(old, change.dropped, change.added)
