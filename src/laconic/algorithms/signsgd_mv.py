"""signSGD with majority vote; with momentum it is Signum.

Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD, ICML 2018, arXiv 1802.04434; Bernstein, Zhao,
Azizzadenesheli, Anandkumar: signSGD with Majority Vote is Communication Efficient and Fault Tolerant, ICLR 2019,
arXiv 1810.05291, Algorithm 1.
Paper -> here: beta -> momentum, v_m -> me.memory["momentum"], lambda -> the inner optimizer's weight_decay.
Equations:
  worker: v <- beta v + (1 - beta) g; sends sgn(v)
  server: answers s = sgn(sum of sgn(v))
  step: x <- x - lr (s + lambda x)
Differs: nothing. The gradient enters the momentum with the factor 1 - beta, as in the papers' code. The sign of 0 is
+1, and so is a tie, as in the code of 2019; sign_zero="random" draws both. A third sign, 0, as in that of 2018, fits no
bit.
Weight decay is not part of the vote: the inner optimizer adds it afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from laconic.compressors import majority, momentum_signs, zeros_at_random
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
from laconic.kernels.api import ALL_SELECTED
from laconic.wire import Signs


@algorithm("signsgd-mv")
@dataclass(frozen=True, kw_only=True)
class SignSGDMajorityVote(Algorithm):
    """One bit per parameter in each direction, and a majority vote."""

    source: ClassVar[str] = "Bernstein et al., ICML 2018 and ICLR 2019, Algorithm 1"
    same_data: ClassVar[bool] = True
    counts_zeros: ClassVar[bool] = True
    worker_slots: ClassVar[Mapping[str, Slot]] = {"momentum": Slot(rule=Rule.MEAN)}
    test_lr: ClassVar[float] = 0.01

    momentum: float = hyperparameter(
        0.9, "beta, share of the old momentum that stays; 0 gives signSGD", within="[0, 1)"
    )

    sign_zero: str = hyperparameter(
        "plus", "the sign of 0, and of a tie of votes: +1 (plus), or a keyed draw of -1 and +1 (random)",
        choices=("plus", "random"),
    )  # fmt: skip

    @property
    def separable(self) -> bool:
        return True

    @property
    def over_slices(self) -> Slices:
        return "exact"

    @property
    def lr_factor(self) -> float:
        return 1e-2  # a step moves every parameter by lr, where SGD moves it by lr times a small gradient

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        signs = Accept(Signs, threshold=ALL_SELECTED, key=0)
        return (Exchange(count=spec.d, offset=spec.offset, up=signs, down=signs),)

    def work(self, me: Worker) -> Step:
        sent = momentum_signs(me.gradient, me.memory["momentum"], mu=self.momentum, offset=me.offset)
        if self.sign_zero == "random":
            sent = zeros_at_random(sent, me.gradient == 0, me.key("zeros"))
        me.memory["momentum"] = me.gradient  # momentum_signs has put the new momentum there
        reply = yield sent
        return reply.result()

    def serve(self, server: Server, inbox: Inbox) -> Signs:
        made = majority(list(inbox.values()), offset=server.offset, count=server.count, dtype=server.memory.dtype)
        return made if self.sign_zero == "plus" else zeros_at_random(made, inbox.votes() == 0, server.key("ties"))

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return float(spec.d), float(spec.d)
