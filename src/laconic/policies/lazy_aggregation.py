"""When a worker need not send: the lazy aggregation of LAG, LASG and SASG.

The server keeps every worker's last upload and uses it again. A worker skips while its gradient has changed little
against how far the model has moved: ||gap||^2 <= (1/N^2) sum_j alpha_j ||x_{t+1-j} - x_{t-j}||^2, j = 1 .. window.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.contract import Algorithm, Worker
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import squared_norm


@dataclass(frozen=True, kw_only=True)
class Lazy(Algorithm):
    """What lazy methods share: the threshold, the longest delay, and who counts as late.

    In me.memory: "before" (d,), the parameters a round ago; "moves" (window,), squared lengths of the last steps,
    newest first; "there" (d,), the parameters at the last upload; "delay", rounds since then, 1 after an upload.
    """

    skips: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    reads_lr: ClassVar[bool] = True
    takes_changes: ClassVar[bool] = False

    alpha: float = hyperparameter(
        0.5, "how much movement excuses a skip; alpha_j is this over the rate of one worker's gradient",
        within="[0, inf)", unit="1/rate",
    )  # fmt: skip
    window: int = hyperparameter(10, "how many past steps count as movement", within="[1, inf)", unit="rounds")
    max_delay: int = hyperparameter(10, "an upload this old is renewed", within="[1, inf)", unit="rounds")
    warm_up_rounds: int = hyperparameter(
        10, "first rounds in which everybody uploads", within="[0, inf)", unit="rounds"
    )
    lr_convention: str = hyperparameter(
        "mean", "the step is lr times the mean over workers, or times their sum", choices=("mean", "sum")
    )

    @property
    def separable(self) -> bool:
        return True

    def watch(self, me: Worker) -> float:
        """Note how far the model moved since the last round; returns the threshold for this one. Call once a round."""
        here = me.parameters
        moves = me.memory["squared_steps"] if "squared_steps" in me.memory else torch.zeros(0, dtype=torch.float64)
        if "previous_parameters" in me.memory:
            step = squared_norm(torch.sub(here, me.memory["previous_parameters"], out=me.memory.scratch()))
            moves = torch.cat([torch.tensor([step], dtype=torch.float64), moves])[: self.window]
        me.memory["previous_parameters"] = here
        me.memory["squared_steps"] = moves
        learning_rate = me.lr / me.n_workers if self.lr_convention == "mean" else me.lr
        return self.alpha / learning_rate * float(moves.sum()) / me.n_workers**2

    def must_send(self, me: Worker) -> bool:
        """Whether this upload is due whatever the gradient says."""
        never = "uploaded_parameters" not in me.memory
        return never or me.round < self.warm_up_rounds or me.memory.number("delay", 1) >= self.max_delay

    def note(self, me: Worker, *, uploaded: bool) -> None:
        """Remember whether this round's upload reached the server."""
        if uploaded:
            me.memory["uploaded_parameters"] = me.memory["previous_parameters"]
            me.memory.set_number("delay", 1)
        else:
            me.memory.set_number("delay", me.memory.number("delay", 1) + 1)

    def combined(self, total: Tensor, n_workers: int) -> Tensor:
        """The workers' sum (d,) as the convention wants it; overwrites `total`."""
        return total.div_(n_workers) if self.lr_convention == "mean" else total


def gap_to_second(me: Worker, parameters: Tensor) -> Tensor:
    """The mini-batch's gradient here less the one at `parameters` (d,): (d,), which lives as a spare vector does."""
    return torch.sub(me.gradient, me.gradient_at(parameters), out=me.memory.scratch())


def small_against(gap: Tensor, threshold: float) -> bool:
    """Whether ||gap||^2 excuses a skip. A threshold of 0 excuses nothing, so that alpha = 0 always uploads."""
    return threshold > 0 and squared_norm(gap) <= threshold
