"""EC-SGD, also DoubleSqueeze: compress upload and download, and keep what was not sent as residual.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, section 3.3, equations
(3.8)-(3.12); Tang et al.: DoubleSqueeze, ICML 2019, arXiv 1905.05957, Algorithm 1.
Paper -> here: delta^(n) -> me.memory["residual"], delta -> server.memory["residual"],
Q -> compressor / server_compressor.
Equations:
  worker: v = g + delta_n; sends Q(v); delta_n <- v - Q(v)
  server: V = mean of Q(v) + delta; answers Q(V); delta <- V - Q(V)
  step: x <- x - gamma Q(V)
Differs: the mean over workers (the DoubleSqueeze code sums). The scale of one-bit signs is ||v||_1/d: the section's
||v|| without 1/sqrt(d) would expand instead of contract.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from laconic.compressors import COMPRESSORS, Compressor, ScaledSign, common_bounds, warn_of_growing_residual
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Rule, Server, Slices, Slot, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.wire import Packet


@algorithm("ec-sgd")
@dataclass(frozen=True, kw_only=True)
class ECSGD(Algorithm):
    """Any compressor in both directions, with error feedback on both sides."""

    source: ClassVar[str] = (
        "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 3.3; DoubleSqueeze, Alg. 1"
    )
    tolerates_absence: ClassVar[bool] = True
    worker_slots: ClassVar[Mapping[str, Slot]] = {"residual": Slot(rule=Rule.SUM)}
    server_slots: ClassVar[Mapping[str, Slot]] = {"residual": Slot(rule=Rule.SAME)}

    compressor: Compressor = hyperparameter(ScaledSign(), "Q, compressor of the upload", kinds=COMPRESSORS)
    server_compressor: Compressor = hyperparameter(ScaledSign(), "Q, compressor of the download", kinds=COMPRESSORS)

    def check_size(self, spec: ModelSpec, n_workers: int) -> None:
        """Warn where a residual would grow without bound."""
        warn_of_growing_residual(self.name, "compressor", self.compressor, spec)
        warn_of_growing_residual(self.name, "server_compressor", self.server_compressor, spec)

    @property
    def separable(self) -> bool:
        return self.compressor.separable and self.server_compressor.separable

    @property
    def over_slices(self) -> Slices:
        by_layer = self.compressor.separable_by_layer and self.server_compressor.separable_by_layer
        return "exact" if self.separable else "layers" if by_layer else "blocks"

    def server_bounds(self, spec: ModelSpec) -> Sequence[int]:
        return common_bounds(self.compressor.server_bounds(spec), self.server_compressor.server_bounds(spec))

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        up, down = self.compressor.accept(spec), self.server_compressor.accept(spec)
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        corrected = me.gradient  # becomes (3.8), in place
        key = me.key("compress") if self.compressor.reads_key else 0
        sent = self.compressor.with_residual(corrected, me.memory["residual"], spec=me.spec, key=key, offset=me.offset)
        reply = yield sent
        me.memory["residual"] = sent.unsent_of(corrected) if reply.delivered else corrected  # (3.9)
        return reply.result()  # (3.12)

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        sent, server.memory["residual"] = self.server_compressor.answer(  # (3.10), (3.11), a mean over all workers
            inbox, server.memory["residual"], server.scratch,
            spec=server.spec, key=server.key("compress") if self.server_compressor.reads_key else 0,
            offset=server.offset,
        )  # fmt: skip
        return sent

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return self.compressor.paper_bits(spec), self.server_compressor.paper_bits(spec)
