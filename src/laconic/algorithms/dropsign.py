"""DropSignSGD: signs of randomly selected parameters in both directions, with error feedback.

Phong, Phuong: Distributed SignSGD With Improved Accuracy and Network-Fault Tolerance, IEEE Access 2020,
doi 10.1109/ACCESS.2020.3032637, Algorithm 1.
Paper -> here: m -> me.memory["momentum"], e -> me.memory["residual"], e~ -> server.memory["residual"],
mu -> momentum, beta -> keep, beta~ -> server_keep, c -> c, c~ -> server_c, M -> inbox.n_workers.
Equations:
  worker: m <- mu m + g; p = mu m + g + e; sends s = sgn(p) on a random share beta; e <- p - c s
  server: P = (c/M) sum of s + e~; answers s~ = sgn(P) on a random share beta~; e~ <- P - c~ s~
  step: x <- x - eta s~
Differs: the paper gives no learning rate; by Lemma 7 the effective one is eta/c, so `lr_factor` is c. Line 11 applies
the server's Delta~ (the print drops the tilde). sgn(0) is +1, since one bit is sent. What was sent and not delivered
is added back to the residual, which differs by rounding from leaving it there.
Stability: per round, at most c * keep of each parameter's residual is sent on average. Where |g|/(1 - mu) stays above
that, the residual grows without bound, so c has to be tuned.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from laconic.compressors import error_feedback_signs, server_error_feedback_signs, threshold_of
from laconic.contract import (
    Accept,
    Algorithm,
    Exchange,
    Inbox,
    ModelSpec,
    Rule,
    Server,
    Slices,
    Slot,
    Step,
    Worker,
    algorithm,
)
from laconic.hyperparameters import hyperparameter
from laconic.wire import Signs


@algorithm("dropsign")
@dataclass(frozen=True, kw_only=True)
class DropSign(Algorithm):
    """Signs on keyed masks in both directions, with error feedback."""

    source: ClassVar[str] = "Phong & Phuong, IEEE Access 2020, Algorithm 1"
    tolerates_absence: ClassVar[bool] = True
    takes_gradient_tensors: ClassVar[bool] = True
    worker_slots: ClassVar[Mapping[str, Slot]] = {
        "momentum": Slot(rule=Rule.MEAN), "residual": Slot(rule=Rule.SUM),
    }  # fmt: skip
    server_slots: ClassVar[Mapping[str, Slot]] = {"residual": Slot(rule=Rule.SAME)}
    test_settings: ClassVar[dict[str, float]] = {"momentum": 0.5, "c": 4.0, "server_c": 4.0}
    test_lr: ClassVar[float] = 0.1

    momentum: float = hyperparameter(0.9, "mu of the Nesterov momentum", within="[0, 1)")
    keep: float = hyperparameter(0.3, "beta, share of the signs that a worker sends", within="(0, 1]")
    server_keep: float = hyperparameter(0.5, "beta~, share of the signs that the server sends", within="(0, 1]")
    c: float = hyperparameter(
        6e-3, "how much one sent sign takes off a worker's residual", within="(0, inf)", unit="gradient units"
    )
    server_c: float = hyperparameter(
        6e-3, "how much one sent sign takes off the server's residual", within="(0, inf)", unit="gradient units"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.server_keep * self.server_c < self.keep * self.c:
            warnings.warn(
                "dropsign: per round and parameter, the server sends at most "
                f"server_keep*server_c={self.server_keep * self.server_c:g} on average and may receive "
                f"keep*c={self.keep * self.c:g}, so its residual may grow; "
                f"raise server_keep above {self.keep:g}",
                stacklevel=3,
            )

    @property
    def separable(self) -> bool:
        return True

    @property
    def over_slices(self) -> Slices:
        return "exact"

    @property
    def lr_factor(self) -> float:
        return self.c

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        up, down = (
            Accept(Signs, threshold=threshold_of(keep), stream="mask") for keep in (self.keep, self.server_keep)
        )
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        momentum, residual = me.scratch(), me.scratch()
        sent, is_finite = error_feedback_signs(  # lines 6-8 and 12 in one pass
            me.gradient_tensors, me.memory["momentum"], me.memory["residual"], momentum, residual,
            mu=self.momentum, decay=1.0, c=self.c, keep=self.keep, key=me.key("mask"), offset=me.offset,
        )  # fmt: skip
        me.require(is_finite)
        me.memory["momentum"], me.memory["residual"] = momentum, residual
        reply = yield sent
        if not reply.delivered:
            me.memory["residual"] = residual.add_(sent.dense(), alpha=self.c)
        return reply.dense()  # lines 10-11

    def serve(self, server: Server, inbox: Inbox) -> Signs:
        residual = server.scratch()
        sent = server_error_feedback_signs(  # lines 15-17 in one pass
            inbox.votes(), server.memory["residual"], residual, divisor=inbox.n_workers, scale=self.c, decay=1.0,
            c=self.server_c,
            keep=self.server_keep, key=server.key("mask"), offset=server.offset,
        )  # fmt: skip
        server.memory["residual"] = residual
        return sent

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return self.keep * spec.d, self.server_keep * spec.d
