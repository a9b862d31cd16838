"""PowerSGD: each gradient matrix as the product of two thin ones, which two all-reduces average.

Vogels, Karimireddy, Jaggi: PowerSGD, Practical Low-Rank Gradient Compression, NeurIPS 2019, arXiv 1905.13727,
Algorithms 1 and 2.
Paper -> here: r -> rank, P-hat -> left, Q -> me.memory["q"], e_w -> me.memory["residual"].
Equations:
  worker, for a gradient matrix G: M = G + e_w; sends M Q
  server: answers P = mean of M Q, of which all take P-hat = orthonormal(P)
  worker: sends M^T P-hat; server: answers Q = mean of M^T P-hat; e_w <- M - P-hat (own M^T P-hat)^T
  step: x <- x - lr P-hat Q^T
Differs: momentum is the inner optimizer's. Vectors, and matrices no longer than their factors, go with P as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from laconic.compressors import dense
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Rule, Server, Slices, Slot, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import orthonormal, outer_sum
from laconic.random_keys.streams import normals
from laconic.wire import Dense


@algorithm("powersgd")
@dataclass(frozen=True, kw_only=True)
class PowerSGD(Algorithm):
    """Low-rank gradient matrices, with error feedback and a warm start."""

    source: ClassVar[str] = "Vogels, Karimireddy & Jaggi, NeurIPS 2019, Algorithms 1 and 2"
    over_slices: ClassVar[Slices] = "blocks"
    needs_shapes: ClassVar[bool] = True
    test_settings: ClassVar[dict[str, int]] = {"rank": 1}

    rank: int = hyperparameter(2, "r, rank of the approximations", within="[1, inf)")

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        q = Slot(rule=Rule.SAME, length=lambda spec: self.exchanges(spec)[-1].count)
        return {"residual": Slot(rule=Rule.SUM), "q": q}

    def pays(self, rows: int, columns: int) -> bool:
        """Return whether the two factors of a matrix have fewer elements."""
        return (rows + columns) * self.rank < rows * columns

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        low, r = [m for m in spec.matrices if self.pays(m.rows, m.columns)], self.rank
        counts = {"p": spec.d + sum(m.rows * r - m.size for m in low), "q": sum(m.columns * r for m in low)}
        return tuple(Exchange(count=n, offset=spec.offset, name=name, adds=True) for name, n in counts.items() if n)

    def work(self, me: Worker) -> Step:
        low, r = [m for m in me.spec.matrices if self.pays(m.rows, m.columns)], self.rank
        if not low:
            return (yield dense(me.gradient, offset=me.offset)).dense()
        rest = [slice(t.offset, t.offset + t.size) for t in me.spec.tensors if t not in low]
        corrected, direction = me.gradient.add_(me.memory["residual"]), me.scratch()
        if "q" not in me.memory:  # random, and the same on all workers
            values = [normals(me.shared_key("q"), m.columns * r, (me.offset + m.offset) * r) for m in low]
            me.memory["q"] = torch.cat([torch.from_numpy(part).to(corrected) for part in values])
        widths = [m.columns * r for m in low]
        q = torch.split(me.memory["q"], widths)
        sent = [m.of(corrected) @ part.view(-1, r) for m, part in zip(low, q, strict=True)]
        sent += [corrected[t] for t in rest]
        reply = yield dense(torch.cat([part.flatten() for part in sent]), offset=me.offset)
        means = torch.split(reply.dense(), [part.numel() for part in sent])
        left = [orthonormal(p.view(-1, r)) for p in means[: len(low)]]
        own = [m.of(corrected).T @ p for m, p in zip(low, left, strict=True)]
        me.memory["q"] = (yield dense(torch.cat([part.flatten() for part in own]), offset=me.offset)).dense().clone()
        for m, p, mine, mean in zip(low, left, own, torch.split(me.memory["q"], widths), strict=True):
            m.of(corrected).addmm_(p, mine.T, alpha=-1)
            outer_sum(p, mean.view(-1, r), out=m.of(direction))
        for t, mean in zip(rest, means[len(low) :], strict=True):
            direction[t], corrected[t] = mean, 0
        me.memory["residual"] = corrected
        return direction

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        return dense(inbox.mean(), offset=server.offset)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        bits = 32.0 * sum(exchange.count for exchange in self.exchanges(spec))
        return bits, bits
