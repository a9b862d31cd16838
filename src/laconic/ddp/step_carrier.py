"""A method that is carried by the optimizer's step: DistributedDataParallel leaves each rank its own gradient.

The optimizer stays the user's own, with schedules and scalers around it. Its `step` is replaced by one that runs a
`DistributedOptimizer`, which steps it in turn.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.ddp.replaced_step import Closure, ReplacedStep
from laconic.ddp.settings import Settings
from laconic.ddp.trampoline import Trampoline
from laconic.drivers.distributed.rounds import Processes
from laconic.torch_compat import LOSS_SCALE, OVERFLOW, GradBucket, let_scale
from laconic.training.buffers import Buffers
from laconic.training.checkpoints import Checkpoints
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.replica_check import ReplicaCheck
from laconic.training.wrappers import hand_over, take_back


class LocalGradients:
    """Leaves each rank the gradients that it has computed."""

    def take(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Return the bucket's values as they are."""
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future


class OptimizerCarrier:
    """The rounds of a method in the steps of a user's optimizer, whoever has left it gradients."""

    overlap = False
    n_slices = 1

    def __init__(self, optimizer: Optimizer, wrapped: DistributedOptimizer) -> None:
        """Replace the optimizer's step by one of `wrapped`, which steps it in turn."""
        self._optimizer, self.wrapped, self.algorithm = optimizer, wrapped, wrapped.algorithm
        self._step = ReplacedStep(optimizer, self._exchange)
        let_scale(optimizer, True)
        self._n_aborted = 0

    @property
    def driver(self) -> Processes:
        """What moves the packets."""
        return self.wrapped.driver

    @property
    def replica_check(self) -> ReplicaCheck:
        """What compares the replicas."""
        return self.wrapped.replica_check

    def share_buffers(self, how: Buffers | None = None) -> None:
        """Make the buffers equal on all ranks; see `Handle.share_buffers`."""
        self.wrapped.share_buffers(how)

    @property
    def aborted(self) -> bool:
        """Whether the last round was aborted."""
        return self._n_aborted < self.driver.aborted_rounds

    def _exchange(self, closure: Closure, step: Callable[..., Any]) -> Any:  # noqa: ANN401
        """Take a step of all ranks, with what GradScaler has set in the user's optimizer."""
        inner, outer = vars(self._optimizer), vars(self.wrapped)
        given = {name: inner.pop(name) for name in (LOSS_SCALE, OVERFLOW) if name in inner}
        self._n_aborted = self.driver.aborted_rounds
        outer.update(given)
        try:
            return self._take_step(closure)
        finally:
            for name in (LOSS_SCALE, OVERFLOW):
                outer.pop(name, None)
            inner.update(given)

    def _take_step(self, closure: Closure) -> Any:  # noqa: ANN401
        return self.wrapped.step(closure)

    @property
    def checkpoints(self) -> Checkpoints:
        """What saves and loads the state."""
        return self.wrapped.checkpoints

    def close(self) -> None:
        """Leave the group, and give the optimizer its own step again. Not collective."""
        self.wrapped.close()
        self._step.restore()
        let_scale(self._optimizer, False)


class StepCarrier(OptimizerCarrier):
    """The same, where DistributedDataParallel leaves each rank its own gradients."""

    def __init__(
        self, ddp: DistributedDataParallel, trampoline: Trampoline, algorithm: Algorithm, settings: Settings
    ) -> None:
        """Make the ranks agree, and replace the optimizer's step. Collective."""
        assert settings.optimizer is not None
        self._ddp = ddp
        hand_over(ddp)
        try:
            wrapped = DistributedOptimizer(
                settings.optimizer, algorithm, model=ddp.module, group=ddp.process_group, buffers="local", lr="kept",
                **settings.of_step(),
            )  # fmt: skip
        except BaseException:
            take_back(ddp)
            raise
        super().__init__(settings.optimizer, wrapped)
        trampoline.rounds = LocalGradients()

    def close(self) -> None:
        """Leave the group, and give the optimizer its own step again. Not collective."""
        super().close()
        take_back(self._ddp)
