"""A user's optimizer whose `step` does something else for a while."""

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch.optim import Optimizer

Closure = Callable[[], Any] | None
Instead = Callable[[Closure, Callable[..., Any]], Any]
"""Called with the closure and the optimizer's own step; returns what `step` returns."""


class ReplacedStep:
    """An optimizer's `step`, replaced until `restore`."""

    def __init__(self, optimizer: Optimizer, instead: Instead) -> None:
        """Replace it. A call from within `instead` is one of the optimizer's own step."""
        self.optimizer = optimizer
        self._own = vars(optimizer).get("step")
        self._passes = False  # whether calls go to the optimizer's own step
        step = optimizer.step

        def replaced(_: Optimizer, closure: Closure = None) -> Any:  # noqa: ANN401
            if self._passes:
                return step() if closure is None else step(closure)
            self._passes = True
            try:
                return instead(closure, step)
            finally:
                self._passes = False

        optimizer.step = MethodType(replaced, optimizer)  # type: ignore[method-assign]
        self._replaced = vars(optimizer)["step"]

    def restore(self) -> None:
        """Give the optimizer its own step again; if another function was put around ours, ours does nothing then."""
        self._passes = True
        if vars(self.optimizer).get("step") is not self._replaced:
            return
        if self._own is None:
            del self.optimizer.step
        else:
            self.optimizer.step = self._own  # type: ignore[method-assign]
