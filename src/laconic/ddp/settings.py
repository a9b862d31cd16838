"""What `attach` was given besides the method: it holds for every method that follows it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.drivers.distributed.nodes import Nodes


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

    def loss_scale(self) -> Tensor | None:
        """Return what the loss is multiplied by now, one number; None if by nothing."""
        scaler = self.grad_scaler
        return torch.tensor(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else None

    def agreed(self) -> dict[str, Any]:
        """Return those that must be equal on all ranks, and that only a hook has."""
        return {name: getattr(self, name) for name in ("clip_norm", "clip_value")}

    def of_step(self) -> dict[str, Any]:
        """Return those that `DistributedOptimizer` takes too."""
        names = ("layout", "seed", "timeout_s", "local_steps", "clip_norm", "clip_value", "nodes")
        return {name: getattr(self, name) for name in names}
