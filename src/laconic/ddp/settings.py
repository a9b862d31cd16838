"""What `attach` was given besides the method: it holds for every method that follows it."""

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an attachment; `attach` explains them."""

    optimizer: Optimizer | None
    layout: str
    seed: int
    timeout_s: float | None
    overlap: bool | None
    local_steps: int
    clip_norm: float | None
    clip_value: float | None

    def agreed(self) -> dict[str, Any]:
        """Return those that must be equal on all ranks, and that only a hook has."""
        return {name: getattr(self, name) for name in ("clip_norm", "clip_value")}

    def of_step(self) -> dict[str, Any]:
        """Return those that `DistributedOptimizer` takes too."""
        names = ("layout", "seed", "timeout_s", "local_steps", "clip_norm", "clip_value")
        return {name: getattr(self, name) for name in names}
