"""Sparse SGD: every worker sends the largest elements of its step and keeps the rest as residual.

Deng, Li, Sun, Lu: Communication-Efficient Distributed Learning via Sparse and Adaptive Stochastic Gradient (SASG),
arXiv 2112.04088, the baseline "Sparse"; Stich, Cordonnier, Jaggi: Sparsified SGD with Memory, NeurIPS 2018,
arXiv 1809.07599.
Paper -> here: e -> me.memory["residual"], gamma -> me.lr, T_k -> take, k -> k or density.
Equations:
  worker: p = gamma g + e; sends T_k(p); e <- p - T_k(p)
  server: answers the mean of T_k(p)
  step: x <- x - mean of T_k(p)
Differs: the residual contains the learning rate, as in the paper, so the direction is divided by it before the inner
optimizer multiplies it again. The mean over workers (the papers' code sums). The paper counts only the values of the
upload; `wire` and `payload` count the positions and the dense download too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from laconic.compressors import Selection, dense
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Rule, Server, Slices, Slot, Step, Worker, algorithm
from laconic.kernels.api import clear_at
from laconic.wire import Dense, Packet


@algorithm("sparse")
@dataclass(frozen=True, kw_only=True)
class SparseSGD(Selection, Algorithm):
    """The largest elements of each worker's step, with error feedback."""

    source: ClassVar[str] = "Stich, Cordonnier & Jaggi, NeurIPS 2018; Deng, Li, Sun & Lu, SASG, baseline"
    tolerates_absence: ClassVar[bool] = True
    reads_lr: ClassVar[bool] = True
    worker_slots: ClassVar[Mapping[str, Slot]] = {"residual": Slot(rule=Rule.SUM)}
    test_settings: ClassVar[dict[str, float]] = {"density": 0.25}

    @property
    def separable(self) -> bool:
        return True

    @property
    def over_slices(self) -> Slices:
        return "blocks"

    def check_size(self, spec: ModelSpec, n_workers: int) -> None:
        self.n_selected(spec)

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (Exchange(count=spec.d, offset=spec.offset, up=self.accept_selection(spec)),)

    def work(self, me: Worker) -> Step:
        corrected = me.gradient  # at the learning rate 0 the residual waits
        if me.lr:
            corrected.mul_(me.lr).add_(me.memory["residual"])  # in place of the gradient
        sent = self.take(corrected, me.spec, me.offset)
        reply = yield sent
        if reply.delivered:
            clear_at(corrected, sent.indices)
        me.memory["residual"] = corrected
        return torch.div(reply.dense(), me.lr or 1.0, out=me.scratch())

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        # By all workers: what was not delivered stays in its worker's residual.
        return dense(inbox.sum().div_(inbox.n_workers), offset=server.offset)

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        return packet.paper_bits if direction == "up" else 0.0

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * self.n_selected(spec), 0.0
