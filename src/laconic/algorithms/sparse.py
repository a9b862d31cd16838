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
upload; `wire` and `payload` count the positions and the download too. With answer="sparse" the mean travels as the
positions that any worker has sent, with their values: fewer bytes, and the same parameters bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from laconic.compressors import Selection, dense
from laconic.contract import (
    DENSE,
    Accept,
    Algorithm,
    Exchange,
    Inbox,
    ModelSpec,
    Reply,
    Rule,
    Server,
    Slices,
    Slot,
    Step,
    Worker,
    algorithm,
)
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import clear_at, put_at, union_sum
from laconic.wire import Dense, Packet, Sparse

Parts = tuple[Tensor, Tensor]  # of a vector: positions (k,) int64 and values (k,)


@dataclass(frozen=True, kw_only=True)
class SparseUploads(Selection):
    """What `sparse` and `sasg` share: uploads of the largest elements, whose sum is answered densely or sparsely."""

    answer: str = hyperparameter(
        "dense", "what the server answers: all elements (dense), or those that any worker has sent (sparse), for the "
        "same parameters",
        choices=("dense", "sparse"),
    )  # fmt: skip

    def accept_answer(self, spec: ModelSpec, n_workers: int) -> Accept:
        """Return what a worker accepts as the answer."""
        return DENSE if self.answer == "dense" else self.accept_union(spec, n_workers)

    def answered(self, server: Server, uploads: Sequence[Parts], divisor: int) -> Dense | Sparse:
        """Return the sum of the uploads, added in their order, divided by `divisor`."""
        lists, values_of_all = [positions for positions, _ in uploads], [values for _, values in uploads]
        union, sums = union_sum(lists, values_of_all, server.memory.dtype)
        mean = sums.div_(divisor)
        if self.answer == "dense":
            return Dense.of_elements(union, mean, server.scratch(), server.offset)
        return Sparse(indices=union, values=dense(mean), count=server.count, offset=server.offset, code=self.code)

    def direction(self, me: Worker, reply: Reply) -> Tensor:
        """Return the answer divided by the learning rate, (d,)."""
        lr, parts = me.lr or 1.0, reply.parts
        found = [_elements_of(part, me.memory.dtype) for part in parts]
        if not parts or None in found:
            return reply.divided(lr)
        out, indices, values = me.scratch(), [], []
        if sum(part.count for part in parts) < me.count:
            out.zero_()
        for part, elements in zip(parts, cast("list[Parts]", found), strict=True):
            start, there = part.offset - me.offset, elements[0].to(out.device)
            values += [elements[1].to(out) / lr]
            indices += [there + start]
            put_at(out[start:][: part.count], there, values[-1])
        me.support = torch.cat(indices), torch.cat(values)
        return out


def _elements_of(answer: Packet, dtype: torch.dtype) -> Parts | None:
    """Return what of an answer is not zero; None of a dense one where that is much, or of another type."""
    if isinstance(answer, Sparse):
        return answer.indices, answer.values.dense()
    if not isinstance(answer, Dense) or answer.values.dtype is not dtype:
        return None
    return answer.elements


@algorithm("sparse")
@dataclass(frozen=True, kw_only=True)
class SparseSGD(SparseUploads, Algorithm):
    """The largest elements of each worker's step, with error feedback."""

    source: ClassVar[str] = "Stich, Cordonnier & Jaggi, NeurIPS 2018; Deng, Li, Sun & Lu, SASG, baseline"
    tolerates_absence: ClassVar[bool] = True
    reads_lr: ClassVar[bool] = True
    takes_gradient_tensors: ClassVar[bool] = True
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
        up, down = self.accept_selection(spec), self.accept_answer(spec, n_workers)
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        corrected = me.scratch()
        residual = me.memory["residual"] if me.lr else None  # at the learning rate 0 it waits
        sent = self.gather_and_take(me, me.lr or 1.0, corrected, residual)
        reply = yield sent
        if reply.delivered:
            clear_at(corrected, sent.indices)
        me.memory["residual"] = corrected
        return self.direction(me, reply)

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        uploads = [(packet.indices, packet.values.dense()) for packet in cast("Mapping[int, Sparse]", inbox).values()]
        # By all workers: what was not delivered stays in its worker's residual.
        return self.answered(server, uploads, inbox.n_workers)

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        return packet.paper_bits if direction == "up" else 0.0

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * self.n_selected(spec), 0.0
