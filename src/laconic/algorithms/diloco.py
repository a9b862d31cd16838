"""DiLoCo: many local steps, then one step of an outer optimizer along the mean of the workers' changes.

Douillard, Feng, Rusu, Chhaparia, Donchev, Kuncoro, Ranzato, Szlam, Shen: DiLoCo, Distributed Low-Communication Training
of Language Models, 2023, arXiv 2311.08105, Algorithm 1.
Paper -> here: InnerOpt -> the inner optimizer, H -> local_steps of the driver, theta^(t-1) - theta_i^(t) -> -me.change,
Delta^(t) -> -mean, OuterOpt -> outer_lr and outer_momentum, k -> inbox.n_workers.
Equations:
  worker: H steps of InnerOpt from x to x_i; sends change_i = x_i - x
  step: m <- mu m + mean of change_i; x <- x + outer_lr (mu m + mean of change_i)
Differs: the outer momentum adds changes and not outer gradients, so that its sign is the other one. Every worker makes
the outer step itself, from the same mean. All workers weigh the same. The paper's inner optimizer is AdamW.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from laconic.compressors import dense
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Rule, Server, Slices, Slot, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.wire import Dense


@algorithm("diloco")
@dataclass(frozen=True, kw_only=True)
class DiLoCo(Algorithm):
    """Local steps of any optimizer, then an outer step with momentum."""

    source: ClassVar[str] = "Douillard et al., DiLoCo, 2023, Algorithm 1"
    consumes: ClassVar[Literal["gradient", "change"]] = "change"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "change"
    worker_slots: ClassVar[Mapping[str, Slot]] = {"momentum": Slot(rule=Rule.SAME)}

    outer_lr: float = hyperparameter(0.7, "learning rate of the outer optimizer", within="(0, inf)")
    outer_momentum: float = hyperparameter(0.9, "Nesterov momentum of the outer optimizer", within="[0, 1)")

    @property
    def separable(self) -> bool:
        return True

    @property
    def over_slices(self) -> Slices:
        return "exact"

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (Exchange(count=spec.d, offset=spec.offset, adds=True),)

    def work(self, me: Worker) -> Step:
        reply = yield dense(me.change, offset=me.offset)
        mean = reply.dense()
        if not self.outer_momentum:
            return torch.mul(mean, self.outer_lr, out=me.scratch())
        momentum = torch.mul(me.memory["momentum"], self.outer_momentum, out=me.scratch()).add_(mean)
        me.memory["momentum"] = momentum
        nesterov = torch.mul(momentum, self.outer_momentum, out=me.scratch()).add_(mean)
        return nesterov.mul_(self.outer_lr)

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        return dense(inbox.mean(), offset=server.offset)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * spec.d, 32.0 * spec.d
