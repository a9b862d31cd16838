"""dist-EF-blockwise SGD with momentum: scaled signs by block, error feedback under a changing learning rate.

Zheng, Huang, Kwok: Communication-Efficient Distributed Blockwise Momentum SGD with Error-Feedback,
NeurIPS 2019, arXiv 1905.10936, Algorithm 2.
Paper -> here: m -> me.memory["momentum"], e -> me.memory["residual"], e~ -> server.memory["residual"],
mu -> momentum, eta_{t-1}/eta_t -> the ratio of the last round's learning rate, memory["lr"], to this round's.
Equations:
  worker: m <- mu m + g; p = mu m + g + (eta_{t-1}/eta_t) e; sends s = C(p); e <- p - s
  server: P = mean of s + (eta_{t-1}/eta_t) e~; answers C(P); e~ <- P - C(P)
  C(v) = (||v_b||_1/d_b) sgn(v_b) for each block b
  step: x <- x - eta_t C(P)
Differs: the residual has the unit of a gradient, as in the authors' code; hence the ratio. The authors' weight decay
has a Nesterov momentum of its own, w <- mu w + lambda x, and adds lambda x + mu w to the direction. The inner
optimizer's `weight_decay` has none, and its momentum would act on the direction too. `weight_decay` here is the
authors' way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from laconic.compressors import ScaledSign
from laconic.contract import (
    Algorithm,
    Exchange,
    Inbox,
    ModelSpec,
    Rule,
    Server,
    Side,
    Slices,
    Slot,
    Step,
    Worker,
    algorithm,
)
from laconic.hyperparameters import hyperparameter
from laconic.wire import Packet


@algorithm("dist-ef")
@dataclass(frozen=True, kw_only=True)
class DistEFBlockwise(Algorithm):
    """Scaled signs by block in both directions, with worker momentum."""

    source: ClassVar[str] = "Zheng, Huang & Kwok, NeurIPS 2019, Algorithm 2"
    reads_lr: ClassVar[bool] = True
    server_slots: ClassVar[Mapping[str, Slot]] = {
        "residual": Slot(rule=Rule.SAME),
        "lr": Slot.number(Rule.SAME, lowest=0),
    }
    test_lr: ClassVar[float] = 0.01

    momentum: float = hyperparameter(0.9, "mu of the Nesterov momentum", within="[0, 1)")
    blocks: str = hyperparameter(
        "layer", 'what shares one scale: the "vector", a "layer", or a block of this many parameters'
    )
    weight_decay: float = hyperparameter(
        0.0, "lambda, weight decay with a Nesterov momentum of its own, as in the authors' code; leave the inner "
        "optimizer's weight_decay at 0 then",
        within="[0, inf)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        ScaledSign(blocks=self.blocks)  # refuses a wrong block size

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        decay = {"weight_decay": Slot(rule=Rule.SAME)} if self.weight_decay else {}
        return {
            "momentum": Slot(rule=Rule.MEAN), "residual": Slot(rule=Rule.SUM),
            "lr": Slot.number(Rule.SAME, lowest=0), **decay,
        }  # fmt: skip

    @property
    def tolerates_absence(self) -> bool:  # type: ignore[override]
        """A worker that misses a round misses its part of the momentum of the weight decay, which all must have."""
        return not self.weight_decay

    @property
    def over_slices(self) -> Slices:
        return "blocks"

    @property
    def lr_factor(self) -> float:
        return 1 - self.momentum

    def server_bounds(self, spec: ModelSpec) -> Sequence[int]:
        return ScaledSign(blocks=self.blocks).server_bounds(spec)

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        signs = ScaledSign(blocks=self.blocks).accept(spec)
        return (Exchange(count=spec.d, offset=spec.offset, up=signs, down=signs),)

    def work(self, me: Worker) -> Step:
        corrected, momentum = me.gradient, me.scratch()
        sent = ScaledSign(blocks=self.blocks).with_momentum(
            corrected, me.memory["momentum"], me.memory["residual"], momentum,
            mu=self.momentum, decay=_ratio(me), spec=me.spec, offset=me.offset,
        )  # fmt: skip
        me.memory["momentum"] = momentum
        me.memory.set_number("lr", me.lr)
        reply = yield sent
        me.memory["residual"] = sent.unsent_of(corrected) if reply.delivered else corrected
        if not self.weight_decay:
            return reply.dense()
        shrinking = self.weight_decay * me.parameters
        me.memory["weight_decay"] = self.momentum * me.memory["weight_decay"] + shrinking
        return reply.dense() + (shrinking + self.momentum * me.memory["weight_decay"])

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        # By all workers: what was not delivered stays in its worker's residual.
        sent, server.memory["residual"] = ScaledSign(blocks=self.blocks).answer(
            inbox, server.memory["residual"], server.scratch,
            decay=_ratio(server), spec=server.spec, offset=server.offset,
        )  # fmt: skip
        server.memory.set_number("lr", server.lr)
        return sent

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        bits = ScaledSign(blocks=self.blocks).paper_bits(spec)
        return bits, bits


def _ratio(side: Side) -> float:
    """Return eta_{t-1} / eta_t. In the first round the residual is zero and the ratio does not matter.

    It is 0 at the learning rate 0, so that the residual waits; eta_{t-1} is the last rate that was not 0.
    """
    return side.memory.number("lr", side.lr) / side.lr if side.lr else 0.0
