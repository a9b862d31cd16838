"""DSGD: no server; every worker makes a local step, then mixes its model with those of its neighbors.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, sections 5.1 and 5.2: X_{t+1} =
(X_t - gamma G_t) W.
mixing="difference": Tang et al.: Communication Compression for Decentralized Training, 2018, arXiv 1803.06443,
and the low-precision form of Bagua. mixing="choco": Koloskova, Stich, Jaggi: Decentralized Stochastic Optimization and
Gossip Algorithms with Compressed Communication, ICML 2019, arXiv 1902.00340.
Paper -> here: W -> graph, x^(n) -> me.parameters, x^(n)_{t+1/2} -> updated, the published copies x^_j ->
me.memory["replica.<rank>"], Q -> compressor, Choco's gamma -> consensus_step_size.
Equations:
  models: x_n <- sum over m of W_nm y_m, where y = x - gamma g
  difference: z_n = sum over m of W_nm x^_m + y_n - x^_n; sends Q(z_n - x^_n); x_n = x^_n <- x^_n + Q(z_n - x^_n)
  choco: sends Q(y_n - x^_n); x^_n <- x^_n + Q(y_n - x^_n); x_n <- y_n + step_size (sum over m of W_nm x^_m - x^_n)
Differs: the inner optimizer makes the local step, and there may be several. Published copies start at the initial
parameters, which are the same on all workers, and not at zero.
"""

from collections.abc import Generator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic.compressors import COMPRESSORS, Compressor, Identity, warn_of_growing_residual
from laconic.contract import (
    DENSE,
    Algorithm,
    Arriving,
    Exchange,
    ModelSpec,
    Reply,
    Rule,
    Slices,
    Slot,
    Step,
    Worker,
    algorithm,
)
from laconic.gossip.mixing import Mixing
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import weighted_sum
from laconic.wire import Packet


@algorithm("dsgd")
@dataclass(frozen=True, kw_only=True)
class DSGD(Algorithm):
    """Local steps, then averaging with the neighbors in a graph."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 5.1"
    consumes: ClassVar[Literal["gradient", "change"]] = "change"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "parameters"
    mode: ClassVar[Literal["rounds", "decentralized"]] = "decentralized"
    replicas_equal: ClassVar[bool] = False

    graph: str = hyperparameter(
        "ring", 'who exchanges models: ring, full, torus, exponential, star, shift-one, or edges such as "0-1 1-2 2-0"'
    )
    mixing: str = hyperparameter(
        "models", "what is sent: the model (models), a compressed difference (difference), or Choco-SGD's (choco)",
        choices=("models", "difference", "choco"),
    )  # fmt: skip
    compressor: Compressor = hyperparameter(Identity(), "Q, compressor of the differences", kinds=COMPRESSORS)
    consensus_step_size: float = hyperparameter(
        1.0, "gamma of Choco-SGD; coarser compressors need a smaller one", within="(0, 1]"
    )

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        # With other neighbors the copies start again, at the parameters, which must then be equal on all workers.
        return {} if self.mixing == "models" else {"replica.<rank>": Slot(rule=Rule.DROP, holds_parameters=True)}

    @property
    def over_slices(self) -> Slices:
        return "exact" if self.compressor.separable else "blocks"

    def check_size(self, spec: ModelSpec, n_workers: int) -> None:
        if self.mixing == "models" and type(self.compressor) is not Identity:
            raise ValueError(
                f"{self.name}: compressor={self.compressor.name} goes with mixing=difference or mixing=choco; the "
                "errors of compressed models would add up"
            )
        if self.mixing != "models" and self.graph == "shift-one":
            raise ValueError(
                f"{self.name}: graph=shift-one pairs each worker with another one every round, and "
                f"mixing={self.mixing} needs the same neighbors in all rounds; use mixing=models or another graph"
            )
        try:
            Mixing.over_cycle(self.graph, n_workers)
        except ValueError as error:
            raise ValueError(f"{self.name}: graph={self.graph!r:.80} of {n_workers} workers: {error}") from None
        if self.mixing == "choco":  # the model less its published copy acts as a residual
            warn_of_growing_residual(self.name, "compressor", self.compressor, spec)

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        sent = DENSE if self.mixing == "models" else self.compressor.accept(spec)
        return (Exchange(count=spec.d, offset=spec.offset, up=sent),)

    def peers(self, rank: int, n_workers: int, round_: int, exchange: int, key: int) -> tuple[int, ...]:
        return Mixing.from_text(self.graph, n_workers, round_).neighbors(rank)

    def work(self, me: Worker) -> Step:
        if self.mixing == "choco":
            return (yield from self._choco(me, me.updated))
        if self.mixing == "difference":
            return (yield from self._difference(me))
        sent, mixed = me.dense_updated(), me.scratch()
        updated = sent.values
        arriving, neighbors = self._mix_while_they_come(me, updated, mixed)
        reply = yield sent
        packets = reply.packets
        if (
            neighbors
            and packets.keys() == neighbors
            and all(arriving.saw(rank, packet) for rank, packet in packets.items())
        ):
            return mixed
        return self._mixed(me, {rank: packet.dense() for rank, packet in packets.items()} | {me.rank: updated}, mixed)

    def _mix_while_they_come(self, me: Worker, updated: Tensor, mixed: Tensor) -> tuple[Arriving, Set[int]]:
        """Write the mixed model to `mixed` (d,) while the neighbors' come; returns what sees them, and their ranks."""
        mixing = Mixing.from_text(self.graph, me.n_workers, me.round)
        neighbors = frozenset(mixing.neighbors(me.rank))
        ranks = sorted({*neighbors, me.rank})
        weights = [mixing.weight(me.rank, rank) for rank in ranks]
        waiting: dict[int, dict[int, Tensor]] = {}  # by start and rank

        def take(rank: int, values: Tensor, start: int) -> None:
            stop = start + values.numel()
            models = waiting.setdefault(start, {me.rank: updated[start:stop]})
            models[rank] = values
            if len(models) == len(ranks):
                weighted_sum([models[rank] for rank in ranks], weights, mixed[start:stop])
                del waiting[start]

        return me.see_arriving(take, me.count), neighbors

    def _mixed(self, me: Worker, models: dict[int, Tensor], out: Tensor | None = None) -> Tensor:
        """Return the weighted sum of the models, (d,) each, added in rank order, in `out` if it is given."""
        ranks, weights = self._weighted(me, models)
        return weighted_sum([models[rank] for rank in ranks], weights, me.scratch() if out is None else out)

    def _weighted(self, me: Worker, models: dict[int, Tensor]) -> tuple[list[int], list[float]]:
        """Return the ranks of models in their order, and the weight of each."""
        mixing = Mixing.from_text(self.graph, me.n_workers, me.round)
        ranks = sorted(models)
        return ranks, [mixing.weight(me.rank, rank) for rank in ranks]

    def _copies(self, me: Worker) -> dict[int, Tensor]:
        """Return the published models of this worker and its neighbors, by rank, each (d,)."""
        ranks = (me.rank, *self.peers(me.rank, me.n_workers, me.round, 0, me.shared_key("graph")))
        if f"replica.{me.rank}" not in me.memory:
            return dict.fromkeys(ranks, me.parameters)
        return {rank: me.memory[f"replica.{rank}"] for rank in ranks}

    def _publish(self, me: Worker, copies: dict[int, Tensor], sent: Packet) -> Generator[Packet, Reply, None]:
        """Send a change of the own published model. Move all of `copies` by what is sent: while it comes, if long."""
        new = {rank: me.scratch() for rank in copies}
        neighbors = {rank: (copy, new[rank]) for rank, copy in copies.items() if rank != me.rank}
        move_own = partial(sent.put_moved, copies[me.rank], new[me.rank])
        arriving = me.see_changes(neighbors, move_own)
        reply = yield sent
        if not arriving.began:
            move_own()
        for rank, (copy, out) in neighbors.items():
            packet = reply.packets[rank]
            if not arriving.saw(rank, packet):
                packet.put_moved(copy, out)
        for rank, model in new.items():
            copies[rank] = me.memory[f"replica.{rank}"] = model

    def _difference(self, me: Worker) -> Step:
        """Send the compressed difference between the mixed and the published model; return the new published one."""
        copies = self._copies(me)
        ranks, weights = self._weighted(me, copies)
        difference, ends = me.updated_difference(copies[me.rank], [copies[rank] for rank in ranks], weights)
        sent = self.compressor.of_measured(difference, ends, spec=me.spec, key=me.key("compress"), offset=me.offset)
        yield from self._publish(me, copies, sent)
        return copies[me.rank]

    def _choco(self, me: Worker, updated: Tensor) -> Step:
        """Send the compressed difference between own and published model, then move toward the neighbors' copies."""
        copies = self._copies(me)
        difference = torch.sub(updated, copies[me.rank], out=me.scratch())
        sent = self.compressor(difference, spec=me.spec, key=me.key("compress"), offset=me.offset)
        yield from self._publish(me, copies, sent)
        toward_neighbors = self._mixed(me, copies).sub_(copies[me.rank]).mul_(self.consensus_step_size)
        return updated.add_(toward_neighbors)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        mixing = Mixing.from_text(self.graph, n_workers)
        neighbors = sum(len(mixing.neighbors(rank)) for rank in range(n_workers)) / n_workers
        bits = neighbors * self.compressor.paper_bits(spec)
        return bits, bits
