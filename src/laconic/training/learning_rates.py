"""The learning rates of the inner optimizer: read each round, checked, and multiplied by a method's factor if wished.

A rate of 0 is legal. Nothing moves at it, so whatever a round with it sends is not applied, and all memories of the
method wait (`WorkerSession.close`). A method never divides by it: see `Side.lr`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.drivers.distributed.door import door
from laconic.torch_compat import take_step

# What these apply does not grow with the direction, so a factor that is meant for plain SGD says nothing about them.
_NORMALIZING = tuple(
    getattr(torch.optim, name)
    for name in (
        "Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop",
        "SparseAdam",
    )
    if hasattr(torch.optim, name)
)  # fmt: skip


Choice = Literal["kept", "scaled"]


class LearningRates:
    """Reads the learning rates each round, and takes the inner optimizer's steps with them."""

    def __init__(self, inner: Optimizer, algorithm: Algorithm, choice: Choice | None = None) -> None:
        """Set up the rates.

        Args:
            inner: the user's optimizer.
            algorithm: the method.
            choice: "scaled" multiplies every rate by the method's `lr_factor` when it is used; the parameter groups
                keep the user's own, so that schedules go on. "kept" leaves them, and so does None.

        Raises:
            ValueError: for another choice, a factor that means nothing for this optimizer, or a method that reads the
                learning rate of an optimizer that has none.
        """
        if choice not in (None, "kept", "scaled"):
            raise ValueError(
                f'lr={choice!r:.80} must be "kept" or "scaled" (multiply by {algorithm.name}\'s lr_factor); the rate '
                "itself is the inner optimizer's"
            )
        normalizes = isinstance(inner, _NORMALIZING)
        if choice == "scaled" and normalizes and algorithm.lr_factor != 1:
            raise ValueError(
                f'lr="scaled": {algorithm.name}\'s lr_factor is for plain SGD, and {type(inner).__name__} divides what '
                f'it applies by its size, so its usual learning rate fits; use lr="kept"'
            )
        self._inner = inner
        self._algorithm = algorithm
        if algorithm.reads_lr and not all("lr" in group for group in inner.param_groups):
            raise ValueError(
                f"{door().optimizer}: {algorithm.name} reads the learning rate, and {type(inner).__name__} has no "
                "'lr' in its parameter groups; use another optimizer or method"
            )
        self.factor = algorithm.lr_factor if choice == "scaled" else 1.0
        """What the parameter groups' rates are multiplied by when they are used."""
        self._is_chosen = choice is not None or normalizes or algorithm.lr_factor == 1
        self.initial = self.by_group()
        """By parameter group, its rate when a rate was first above 0: their proportions."""
        self._none = [0.0] * len(self.initial)
        self.since_exchange: list[float] = self._none
        """By parameter group, its last rate above 0 since the last exchange, if steps are local."""

    def statement(self) -> str:
        """Return what to tell the user of the method's factor; empty if it has none or the user has chosen."""
        if self._is_chosen:
            return ""
        name, factor = self._algorithm.name, self._algorithm.lr_factor
        lrs = sorted({float(group.get("initial_lr", group.get("lr", 1.0))) for group in self._inner.param_groups})
        now, scaled = (", ".join(f"{lr * by:g}" for lr in lrs) for by in (1, factor))
        return (
            f"{name}: the learning rate {now} is kept. {name}'s is usually {factor:g} times that of plain SGD "
            f'(lr_factor; see "laconic show {name}"): if {now} was chosen for SGD, lr="scaled" makes it {scaled}; if '
            f'it was chosen for {name}, lr="kept" says so'
        )

    def by_group(self) -> list[float]:
        """Return every parameter group's current learning rate; 1 where the optimizer has none.

        Raises:
            ValueError: for one that is below 0, inf or NaN.
        """
        lrs: list[float] = []
        for group in self._inner.param_groups:
            lr = self.factor * (float(group["lr"]) if "lr" in group else 1.0)
            if not 0 <= lr < torch.inf:
                raise ValueError(
                    f"lr={lr} of parameter group {len(lrs)} must be a finite number of at least 0; did a schedule run "
                    "beyond its last step?"
                )
            lrs += [lr]
        return lrs

    def note(self) -> None:
        """Remember the current rates for the exchange after local steps."""
        self.since_exchange = [now or last for now, last in zip(self.by_group(), self.since_exchange, strict=True)]

    def end_round(self) -> None:
        """Begin to remember rates anew."""
        self.since_exchange = self._none

    def of_round(self) -> list[float]:
        """Return each group's rate for this round: the current one, or at 0 the last one of the local steps before."""
        lrs = self.by_group()
        if self.since_exchange != self._none:
            lrs = [now or last for now, last in zip(lrs, self.since_exchange, strict=True)]
        return lrs

    def now(self) -> float:
        """Return the learning rate of this round: that of the first parameter group whose rate is not always 0.

        It is 0 if nothing moves, that is if all rates are 0, and have been since the last exchange.

        Raises:
            ValueError: if the method reads it, and the groups' learning rates have changed their proportions.
        """
        lrs = self.by_group() if self.since_exchange == self._none else self.of_round()
        if lrs[1:] == [] and self.initial[0]:
            return lrs[0]
        if not any(lrs):
            return 0.0
        if not any(self.initial):
            self.initial = lrs
        leading = next((place for place, lr in enumerate(self.initial) if lr), 0)
        if self._algorithm.reads_lr and not _have_proportions(lrs, self.initial, leading):
            raise ValueError(
                f"{self._algorithm.name} scales its residual with the learning rate, so the parameter groups' "
                f"learning rates must keep their proportions; they were {self.initial} and are {lrs}"
            )
        return lrs[leading] or max(lrs)

    def step(self, optimizer: Optimizer) -> None:
        """Let an optimizer with these parameter groups take a step, at rates multiplied by the factor."""
        if self.factor == 1:
            take_step(optimizer)
            return
        groups = [group for group in optimizer.param_groups if "lr" in group]
        own = [group["lr"] for group in groups]
        scaled = [lr * self.factor for lr in own]  # which may be a tensor
        for group, lr in zip(groups, scaled, strict=True):
            group["lr"] = lr
        try:
            take_step(optimizer)
        finally:
            for group, lr, during in zip(groups, own, scaled, strict=True):
                if group["lr"] is during:  # else a hook of the step has set another one
                    group["lr"] = lr


def _have_proportions(lrs: Sequence[float], initial: Sequence[float], leading: int) -> bool:
    """Return whether `lrs` are `initial`, multiplied by one number up to rounding. Element `leading` of it is not 0."""
    common = lrs[leading] / initial[leading]
    expected = [common * was for was in initial]
    return all(abs(lr - other) <= 1e-9 * max(lr, other) for lr, other in zip(lrs, expected, strict=True))
