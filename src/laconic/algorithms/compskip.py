"""CompSkipDSGD: DropSign's signs; workers and the server may skip a round.

Phuong, Phong, Fukushima: Distributed Stochastic Gradient Descent With Compressed and Skipped Communication,
IEEE Access 2023, doi 10.1109/ACCESS.2023.3315331, Algorithm 1.
Paper -> here: m -> me.memory["momentum"], e -> me.memory["residual"], e~ -> server.memory["residual"],
mu -> momentum, gamma -> decay, beta -> keep, beta~ -> server_keep, c -> c, c~ -> server_c, skip_{t,i} -> skip,
serverSkip_t -> server_skip, S_t -> inbox, M -> inbox.n_workers.
Equations:
  worker: m <- mu m + g; p = mu m + g + gamma e; sends s = sgn(p) on a random share beta, or nothing; e <- p - c s
  server: P = (c'/|S|) sum of s + gamma e~; answers s~ = sgn(P) on a random share beta~, or nothing; e~ <- P - c~ s~
  step: x <- x - lr s~
Differs: the algorithm does not define c'. Lemma 1 requires c' = c|S|/M, which is the default (cprime="scaled");
cprime="plain" is c' = c. Line 11 applies the server's Delta~. What was sent and not delivered is added back to the
residual, which differs by rounding from leaving it there. Without any packet the sum is zero. The paper gives no
learning rate: `lr_factor` is DropSign's. The paper's accounting uses beta~ = 0.3, its set-up 0.5, the default here.
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
from laconic.policies.skip_policies import SKIP_POLICIES, RandomSkips, SkipPolicy
from laconic.wire import Signs


@algorithm("compskip")
@dataclass(frozen=True, kw_only=True)
class CompSkip(Algorithm):
    """Signs on keyed masks; workers and server may skip rounds."""

    source: ClassVar[str] = "Phuong, Phong & Fukushima, IEEE Access 2023, Algorithm 1"
    skips: ClassVar[bool] = True
    tolerates_absence: ClassVar[bool] = True
    takes_gradient_tensors: ClassVar[bool] = True
    test_settings: ClassVar[dict[str, float]] = {"momentum": 0.5, "c": 4.0, "server_c": 4.0}
    test_lr: ClassVar[float] = 0.1

    momentum: float = hyperparameter(0.9, "mu of the Nesterov momentum", within="[0, 1)")
    decay: float = hyperparameter(0.9, "gamma, share of the residual that stays from round to round", within="[0, 1]")
    keep: float = hyperparameter(0.3, "beta, share of the signs that a worker sends", within="(0, 1]")
    server_keep: float = hyperparameter(0.5, "beta~, share of the signs that the server sends", within="(0, 1]")
    c: float = hyperparameter(
        1e-2, "how much one sent sign takes off a worker's residual", within="(0, inf)", unit="gradient units"
    )
    server_c: float = hyperparameter(
        1e-2, "how much one sent sign takes off the server's residual", within="(0, inf)", unit="gradient units"
    )
    skip: SkipPolicy = hyperparameter(
        RandomSkips(probability=0.3), "policy by which a worker skips rounds", kinds=SKIP_POLICIES
    )
    server_skip: SkipPolicy = hyperparameter(
        RandomSkips(probability=0.1), "policy by which the server skips rounds", kinds=SKIP_POLICIES
    )
    cprime: str = hyperparameter(
        "scaled",
        "scale of the workers' signs at the server: c' = c|S|/M (scaled) or c' = c (plain)",
        choices=("scaled", "plain"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        into = self.keep * self.c * (1 - self.skip.probability)
        out = self.server_keep * self.server_c * (1 - self.server_skip.probability)
        if self.decay == 1 and out < into:
            warnings.warn(
                f"compskip: per round and parameter, the server sends at most {out:g} on average and may receive "
                f"{into:g}, so its residual may grow; raise server_keep above {self.server_keep:g} or set decay < 1",
                stacklevel=3,
            )

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        return {"momentum": Slot(rule=Rule.MEAN), "residual": Slot(rule=Rule.SUM), **self.skip.slots}

    @property
    def server_slots(self) -> Mapping[str, Slot]:
        return {"residual": Slot(rule=Rule.SAME), **self.server_skip.slots}

    @property
    def separable(self) -> bool:
        return self.server_skip.separable

    @property
    def over_slices(self) -> Slices:
        return "exact" if self.skip.separable and self.server_skip.separable else "refused"

    @property
    def lr_factor(self) -> float:
        return self.c

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        up, down = (
            Accept(Signs, threshold=threshold_of(keep), stream="mask") for keep in (self.keep, self.server_keep)
        )
        return (Exchange(count=spec.d, offset=spec.offset, up=(up, None), down=(down, None)),)

    def work(self, me: Worker) -> Step:
        momentum, residual = me.scratch(), me.scratch()
        skips = self.skip.skips(me, n_bytes=self.keep * me.count / 8)
        sent, is_finite = error_feedback_signs(  # lines 6-9 and 12 in one pass, by the numbers of the paper's prose
            me.gradient_tensors, me.memory["momentum"], me.memory["residual"], momentum, residual,
            mu=self.momentum, decay=self.decay, c=self.c, keep=0.0 if skips else self.keep, key=me.key("mask"),
            offset=me.offset,
        )  # fmt: skip
        me.require(is_finite)
        me.memory["momentum"], me.memory["residual"] = momentum, residual
        reply = yield None if skips else sent
        if not skips and not reply.delivered:
            me.memory["residual"] = residual.add_(sent.dense(), alpha=self.c)
        return reply.dense()  # line 10

    def serve(self, server: Server, inbox: Inbox) -> Signs | None:
        divisor = inbox.n_workers if self.cprime == "scaled" else max(1, len(inbox))
        skips = self.server_skip.skips(server, n_bytes=self.server_keep * server.count / 8)
        residual = server.scratch()
        sent = server_error_feedback_signs(  # lines 15-18 in one pass
            inbox.votes(), server.memory["residual"], residual, divisor=divisor, scale=self.c, decay=self.decay,
            c=self.server_c,
            keep=0.0 if skips else self.server_keep, key=server.key("mask"), offset=server.offset,
        )  # fmt: skip
        server.memory["residual"] = residual
        return None if skips else sent

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return (1 - self.skip.probability) * self.keep * spec.d, (
            1 - self.server_skip.probability
        ) * self.server_keep * spec.d

    @classmethod
    def accounting(cls) -> list[tuple[str, str, str]]:
        """The cost section and Table 2: traffic that skipping saves over DropSign with keep = server_keep = 0.3."""
        d, rounds, workers = 25_557_032, 90 * 1359, 7
        keep, skip = 0.3, 0.3

        def gigabytes(share: float) -> float:
            return share * d * rounds * workers / 8e9

        def both(server_skip: float, server_keep: float) -> float:
            return gigabytes(server_skip * server_keep + skip * keep)

        rows = [
            ("ResNet-50 on ImageNet", f"d = {d:,}, {rounds:,} rounds, {workers} workers", "90 epochs x 1359, M = 7"),
            ("server saves, p_s = 0.1", f"{gigabytes(0.1 * 0.3):.2f} GB", "82.05 GB"),
            ("workers save, p_w = 0.3", f"{gigabytes(skip * keep):.2f} GB", "246.16 GB"),
        ]
        printed = {0.1: "328 GB", 0.2: "410 GB", 0.3: "492 GB", 0.4: "574 GB"}
        rows += [(f"both save, p_s = {p}", f"{both(p, 0.3):.1f} GB", text) for p, text in printed.items()]
        other = ", ".join(f"{both(p, 0.5):.1f}" for p in printed)
        rows.append(
            ("note", f"with server_keep = 0.5: {other} GB", "the set-up says 0.5; only 0.3 gives these figures")
        )
        return rows
