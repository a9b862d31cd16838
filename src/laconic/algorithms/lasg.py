"""LASG: lazy aggregation for stochastic gradients, which compares two gradients of the same mini-batch.

Chen, Sun, Yin: LASG: Lazily Aggregated Stochastic Gradients for Communication-Efficient Distributed Learning, 2020,
arXiv 2002.11360; the baseline of Deng, Li, Sun, Lu (SASG), arXiv 2112.04088, equation (6).
Paper -> here: theta^{k-tau_m} -> me.memory["uploaded_parameters"], theta~ -> me.memory["snapshot"], WK1's difference
at the last upload -> me.memory["uploaded_difference"], stored gradient -> server.memory["stored.<rank>"],
c_d or alpha_d -> alpha, D -> window and max_delay, L_m -> smoothness, or with PSE me.memory["smoothness"].
Equations:
  worker: sends g(x) if ||g(x) - g(x at the last upload)||^2, of one mini-batch (WK2), is above the threshold
  threshold: (alpha/gamma) (sum of the last D ||x_t - x_{t-1}||^2) / N^2
  server: answers the mean over all workers of their last uploads
  step: x <- x - gamma mean
Differs: WK1's snapshot is renewed every max_delay rounds. In the paper, the server decides in PS and PSE; here the
worker evaluates the same rule, which saves the server's request and changes no decision. Skips only where the
threshold is above 0, so that alpha = 0 is plain SGD.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.algorithms.lag import STORED, stored_sum
from laconic.contract import DENSE, Exchange, Inbox, ModelSpec, Rule, Server, Slot, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import all_finite, squared_distance
from laconic.policies.lazy_aggregation import Lazy, has_stayed
from laconic.wire import Dense


@algorithm("lasg")
@dataclass(frozen=True, kw_only=True)
class LASG(Lazy):
    """Mini-batch gradients, uploaded only where they have changed."""

    source: ClassVar[str] = "Chen, Sun & Yin, LASG, arXiv 2002.11360; Deng, Li, Sun & Lu, SASG, (6)"
    test_settings: ClassVar[dict[str, float]] = {"alpha": 0.05}
    server_slots: ClassVar[Mapping[str, Slot]] = STORED

    rule: str = hyperparameter(
        "wk2", "how change is measured: by the batch's gradients now and at the last upload's parameters (wk2), by its "
        "difference from the gradient at a snapshot (wk1), or by the distance moved times a smoothness that is given "
        "(ps) or estimated (pse)",
        choices=("wk2", "wk1", "ps", "pse"),
    )  # fmt: skip
    smoothness: float = hyperparameter(
        1.0, "L_m, smoothness of a worker's loss; used by the rule ps", within="(0, inf)"
    )

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        of_rule = {
            "wk1": {
                "snapshot": Slot(rule=Rule.SAME, holds_parameters=True),
                "uploaded_difference": Slot(rule=Rule.PER_WORKER),
            },
            "pse": {"smoothness": Slot.number(Rule.PER_WORKER, lowest=0)},
        }
        return {**super().worker_slots, **of_rule.get(self.rule, {})}

    @property
    def second_gradient(self) -> bool:
        return self.rule != "ps"

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (Exchange(count=spec.d, offset=spec.offset, up=(DENSE, None)),)

    def work(self, me: Worker) -> Step:
        threshold = self.watch(me)
        news = self._news(me) if self.rule == "wk1" else None
        if threshold == 0 or self.must_send(me):
            skip = False
        elif news is not None:
            skip = has_stayed([news], [me.memory["uploaded_difference"]], threshold)
        elif self.rule == "wk2":
            skip = has_stayed([me.gradient], me.gradient_tensors_at(me.memory["uploaded_parameters"]), threshold)
        else:
            skip = self._moved_little(me, threshold)
        sent = None if skip else me.dense_gradient()
        reply = yield sent
        uploaded = sent is not None and reply.delivered
        self.note(me, uploaded=uploaded)
        if uploaded and news is not None:
            me.memory["uploaded_difference"] = news
        return reply.result()

    def _news(self, me: Worker) -> Tensor:
        """WK1: return the batch's gradient at the parameters less the one at the snapshot, (d,)."""
        if me.round % self.max_delay == 0 or "snapshot" not in me.memory:
            me.memory["snapshot"] = me.memory["previous_parameters"]
        news = torch.sub(me.gradient, me.gradient_at(me.memory["snapshot"]), out=me.scratch())
        me.require(all_finite(news))  # it may become a memory
        return news

    def _moved_little(self, me: Worker, threshold: float) -> bool:
        """PS and PSE: return whether L^2 ||x - x at the last upload||^2 is small. PSE measures L whenever it sends."""
        moved = squared_distance([me.memory["previous_parameters"]], [me.memory["uploaded_parameters"]])
        measured = self.rule == "pse"
        smoothness = me.memory.number("smoothness", 0) if measured else self.smoothness
        if smoothness > 0 and threshold > 0 and smoothness**2 * moved <= threshold:
            return True
        if measured and moved > 0:
            gap = squared_distance([me.gradient], me.gradient_tensors_at(me.memory["uploaded_parameters"]))
            if math.isfinite(gap):
                me.memory.set_number("smoothness", max(smoothness, (gap / moved) ** 0.5))
        return False

    def sum_divisor(self, n_workers: int) -> int:
        return self.divisor(n_workers)

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        return stored_sum(server, inbox, self.divisor(inbox.n_workers))

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * spec.d, 32.0 * spec.d
