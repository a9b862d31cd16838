"""How many rounds a step of the optimizer applies: one, or a method's memories stand for something else.

A second backward pass to one step reads gradients that hold the first one's direction, and a pass whose gradients are
cleared without a step loses what its round has sent.
"""

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from laconic.contract import Algorithm
from laconic.torch_compat import backward_pass, is_joining

_IN_DDP = (
    "put all passes but the last into no_sync(), do not let gradients that are thrown away reach these parameters, or "
    "attach with optimizer= and overlap=False, which exchanges in the step"
)


class StepWatch:
    """Counts the rounds since the last step of an optimizer that has these parameters, whichever it is."""

    def __init__(
        self,
        ddp: DistributedDataParallel | None,
        algorithm: Algorithm,
        parameters: Sequence[Tensor],
        advice: str = _IN_DDP,
    ) -> None:
        """Count for the optimizers that have `parameters`.

        Args:
            ddp: the model, if it has a `join()`.
            algorithm: the method.
            parameters: those of the model.
            advice: what users can do where several rounds would be applied as one.
        """
        self._advice = advice
        self._ddp, self._algorithm = None if ddp is None else weakref.ref(ddp), algorithm
        self._may_add_up = algorithm.unbiased and not algorithm.worker_slots and not algorithm.server_slots
        self._ids = {id(parameter) for parameter in parameters}
        self._n_rounds = 0  # since the last step, without those that were aborted
        self._has_stepped = False
        self._is_counted = True  # whether a step follows this round
        me = weakref.ref(self)

        def before_step(optimizer: Optimizer, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            watch = me()
            if watch is not None:
                watch._note_step(optimizer)

        # A watch that nobody holds any more ends too: other optimizers would be taken for ones with hooks.
        self._unregister = weakref.finalize(self, register_optimizer_step_pre_hook(before_step).remove)

    def _note_step(self, optimizer: Optimizer) -> None:
        if any(id(parameter) in self._ids for group in optimizer.param_groups for parameter in group["params"][:1]):
            n, self._n_rounds, self._has_stepped = self._n_rounds, 0, True
            if n > 1 and not self._may_add_up:
                raise RuntimeError(self._refusal(n))

    def begin(self) -> None:
        """Take note that a round begins.

        Where no optimizer has stepped yet, there may be none, and users apply gradients by themselves.

        Raises:
            RuntimeError: if the round before was not applied by a step.
            ValueError: in `join()`, for a method in which gradients of zeros count.
        """
        ddp, name = None if self._ddp is None else self._ddp(), self._algorithm.name
        if ddp is not None and is_joining(ddp) and self._algorithm.counts_zeros:
            raise ValueError(f"join(): ranks without data bring gradients of zeros, which are votes in {name}")
        self._is_counted = backward_pass() != -1  # else this rank has no data, and joins in
        if self._is_counted and self._has_stepped and self._n_rounds and not self._may_add_up:
            raise RuntimeError(self._refusal(self._n_rounds + 1))

    def end(self) -> None:
        """Take note that a round has taken effect."""
        self._n_rounds += self._is_counted

    def _refusal(self, n: int) -> str:
        return (
            f"{n} backward passes have exchanged gradients for one step of the optimizer, and what "
            f"{self._algorithm.name} keeps would no longer be what is missing: {self._advice}"
        )

    def close(self) -> None:
        """Watch no longer."""
        self._unregister()
