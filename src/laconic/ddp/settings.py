"""What `attach` was given besides the method: it holds for every method that follows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.drivers.distributed.agreement import Scalar
from laconic.drivers.distributed.nodes import Nodes
from laconic.hyperparameters import plain_number
from laconic.training.inner_checks import evaluates_again
from laconic.training.optimizer_arguments import check_comparison, check_plain, check_timeout


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an attachment; `attach` explains them."""

    optimizer: Optimizer | None
    layout: str
    seed: int
    timeout_s: float | None
    overlap: bool | None
    local_steps: int
    grad_scaler: torch.amp.GradScaler | None
    clip_norm: float | None
    clip_value: float | None
    nodes: Nodes
    check_every: int = 100
    replicas: str = "sync"
    allowed: Sequence[Algorithm] | None = None
    agreed_choice: Mapping[str, Scalar] = field(default_factory=dict)
    """What must be equal on all ranks of a choice that is to be made, in place of a method's settings."""

    def check(self) -> None:
        """Raise TypeError or ValueError for a setting that no method can be attached with."""
        check_plain(self.layout, self.seed, self.check_every)
        check_comparison(self.check_every, self.replicas)
        check_timeout(self.timeout_s)
        plain_number(self.local_steps, "local_steps", int)
        if self.overlap is not None and not isinstance(self.overlap, bool):
            raise TypeError(f"overlap={self.overlap!r:.80} must be True, False, or None for what gives the same bits")
        if self.overlap and self.local_steps != 1:
            raise ValueError(
                f"overlap=True, local_steps={self.local_steps}: local steps are exchanged in the optimizer's step; "
                "leave overlap out"
            )
        if self.optimizer is not None and not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"optimizer={self.optimizer!r:.80} must be the torch.optim.Optimizer of the loop, or None")
        if self.optimizer is not None and evaluates_again(self.optimizer):
            raise ValueError(
                f"optimizer={type(self.optimizer).__name__} evaluates its closure several times a step, and each would "
                "be a round; use torch.optim.Adam or SGD"
            )
        if self.grad_scaler is not None and not isinstance(self.grad_scaler, torch.amp.GradScaler):
            raise TypeError(f"grad_scaler={self.grad_scaler!r:.80} must be a torch.amp.GradScaler, or None")

    def loss_scale(self) -> Tensor | None:
        """Return what the loss is multiplied by now, one number; None if by nothing."""
        scaler = self.grad_scaler
        return torch.tensor(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else None

    def agreed(self) -> dict[str, Any]:
        """Return those that must be equal on all ranks, and that only a hook has."""
        names = ("clip_norm", "clip_value", "check_every", "replicas")
        return {name: getattr(self, name) for name in names} | dict(self.agreed_choice)

    def of_step(self) -> dict[str, Any]:
        """Return those that `DistributedOptimizer` takes too."""
        names = (
            "layout", "seed", "timeout_s", "local_steps", "clip_norm", "clip_value", "nodes", "check_every", "replicas",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}
