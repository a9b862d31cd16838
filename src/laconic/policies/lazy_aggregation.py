"""When a worker may skip an upload: the lazy aggregation of LAG, LASG and SASG.

The server stores every worker's last upload and uses it again. A worker skips while the change of its gradient, the
gap, is small compared with the movement of the model:
||gap||^2 <= (1/N^2) sum_j alpha_j ||x_{t+1-j} - x_{t-j}||^2, j = 1 .. window.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.contract import Algorithm, Rule, Slot, Worker
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import squared_distance

_LR_SLOTS = {"now": (), "initial": ("alpha_lr",), "delayed": ("alpha_lr", "next_lr", "changed_at")}


@dataclass(frozen=True, kw_only=True)
class Lazy(Algorithm):
    """What lazy methods share: the threshold, and when an upload is required.

    In me.memory: "previous_parameters" (d,), those of one round ago; "squared_steps" (window,), squared lengths of the
    last steps, newest first; "uploaded_parameters" (d,), those at the last upload; "delay", rounds since the last
    upload, 1 after an upload. Unless alpha_of="now", also "alpha_lr", the learning rate of alpha_j; and with "delayed"
    "next_lr", that of the last round, and "changed_at", the round in which it changed.
    """

    skips: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    reads_lr: ClassVar[bool] = True
    takes_changes: ClassVar[bool] = False

    alpha: float = hyperparameter(
        0.5, "how much change of the gradient is tolerated per movement of the model; alpha_j is this divided by the "
        "learning rate of one worker's gradient",
        within="[0, inf)", unit="1/learning rate",
    )  # fmt: skip
    alpha_of: str = hyperparameter(
        "now", "the learning rate that divides alpha: this round's, so that the threshold jumps up where a schedule "
        "lowers it (now); the initial one, so that alpha_j is constant, as printed (initial); or an earlier one "
        "(delayed)",
        choices=("now", "initial", "delayed"),
    )  # fmt: skip
    alpha_delay: int = hyperparameter(
        0, "with alpha_of=delayed: rounds after which alpha_j follows a change of the learning rate; in the authors' "
        "code those of one epoch",
        within="[0, inf)", unit="rounds",
    )  # fmt: skip
    window: int = hyperparameter(10, "number of past steps that count as movement", within="[1, inf)", unit="rounds")
    max_delay: int = hyperparameter(10, "age at which an upload is always renewed", within="[1, inf)", unit="rounds")
    warm_up_rounds: int = hyperparameter(
        10, "number of initial rounds in which all workers upload", within="[0, inf)", unit="rounds"
    )
    lr_convention: str = hyperparameter(
        "mean",
        "whether the step is the learning rate times the mean over workers (mean) or times their sum (sum)",
        choices=("mean", "sum"),
    )

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        return {
            "previous_parameters": Slot(rule=Rule.SAME, holds_parameters=True),
            "squared_steps": Slot(
                rule=Rule.SAME, dtype=torch.float64, length=self.window, may_be_shorter=True, lowest=0
            ),
            "uploaded_parameters": Slot(rule=Rule.PER_WORKER, holds_parameters=True),  # a new worker uploads first
            "delay": Slot.number(Rule.PER_WORKER, lowest=1),
            **{name: Slot.number(Rule.SAME, lowest=0) for name in _LR_SLOTS[self.alpha_of]},
        }

    @property
    def separable(self) -> bool:
        return True

    def watch(self, me: Worker) -> float:
        """Record the model's movement since the last round; return this round's threshold. Call it once per round."""
        moves = me.memory["squared_steps"] if "squared_steps" in me.memory else torch.zeros(0, dtype=torch.float64)
        if "previous_parameters" in me.memory:
            here, step = me.parameters_and_distance(me.memory["previous_parameters"])
            step = min(step, sys.float_info.max)  # in float64, a square may overflow
            moves = torch.cat([torch.tensor([step], dtype=torch.float64), moves])[: self.window]
        else:
            here = me.parameters
        me.memory["previous_parameters"] = here
        me.memory["squared_steps"] = moves
        if not me.lr:
            return 0.0  # no skip: the step is 0, and says nothing about how much the gradient may have changed
        lr = self._lr_of_alpha(me)
        learning_rate = lr / me.n_workers if self.lr_convention == "mean" else lr
        return self.alpha / learning_rate * float(moves.sum()) / me.n_workers**2

    def _lr_of_alpha(self, me: Worker) -> float:
        """Return the learning rate that alpha is divided by in this round."""
        if self.alpha_of == "now":
            return me.lr
        lr = me.memory.number("alpha_lr", me.lr)
        if self.alpha_of == "delayed":
            stays = me.lr == me.memory.number("next_lr", me.lr)
            changed_at = me.memory.number("changed_at", me.round) if stays else me.round
            me.memory.set_number("changed_at", changed_at)
            me.memory.set_number("next_lr", me.lr)
            lr = me.lr if me.round - changed_at >= self.alpha_delay else lr
        me.memory.set_number("alpha_lr", lr)
        return lr

    def must_send(self, me: Worker) -> bool:
        """Return whether this round requires an upload, whatever the gradient is."""
        never = "uploaded_parameters" not in me.memory
        return never or me.round < self.warm_up_rounds or me.memory.number("delay", 1) >= self.max_delay

    def note(self, me: Worker, *, uploaded: bool) -> None:
        """Record whether this round's upload reached the server."""
        if uploaded:
            me.memory["uploaded_parameters"] = me.memory["previous_parameters"]
            me.memory.set_number("delay", 1)
        else:
            me.memory.set_number("delay", me.memory.number("delay", 1) + 1)

    def divisor(self, n_workers: int) -> int:
        """Return what the sum over the workers is divided by, by `lr_convention`."""
        return n_workers if self.lr_convention == "mean" else 1


def has_stayed(gradient: Sequence[Tensor], other: Sequence[Tensor], threshold: float) -> bool:
    """Return whether ||g - h||^2, of which tensors make g and h, allows a skip. A threshold of 0 allows none."""
    return threshold > 0 and squared_distance(gradient, other, limit=threshold) <= threshold
