"""A method that is carried by the optimizer's step: it sends changes, returns parameters, or local steps are taken."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.contract import Algorithm
from laconic.ddp.replaced_step import Closure
from laconic.ddp.settings import Settings
from laconic.ddp.step_carrier import OptimizerCarrier
from laconic.drivers.distributed.shards import Shards
from laconic.fsdp.local_shards import LocalShards
from laconic.fsdp.shard_optimizer import ShardedOptimizer, ShardOptimizer
from laconic.fsdp.sharded_model import ShardedModel
from laconic.protocol.abort import Abort
from laconic.torch_compat import LOSS_SCALE, OVERFLOW, timeout_s_of
from laconic.training.clipping import clipping_of
from laconic.training.flat_parameters import FlatParameters
from laconic.training.inner_checks import check_inner
from laconic.training.step_guard import may_overflow


class NodeGradients:
    """Leaves each node the mean of its ranks' gradients."""

    def take(self, parameters: Sequence[Tensor], reduced: Tensor) -> None:
        """Do nothing."""


class ShardStepCarrier(OptimizerCarrier):
    """The rounds of a method in the steps of the user's optimizer of a sharded model."""

    rounds = NodeGradients()

    def __init__(self, model: ShardedModel, algorithm: Algorithm, settings: Settings) -> None:
        """Make the ranks agree, and replace the optimizer's step. Collective."""
        assert settings.optimizer is not None
        check_inner(settings.optimizer, algorithm, settings.local_steps)
        self._shards = shards = Shards(model.shard_ranks, settings.timeout_s or timeout_s_of(model.group))
        try:
            self._local = local = LocalShards(model.parameters, model.fixed, model.root)
            self._inner = inner = ShardOptimizer(settings.optimizer, local, model)
            inner.clipping = clipping_of(
                settings.clip_norm, settings.clip_value, algorithm, FlatParameters(inner), None, shards.norm
            )
            given = {**settings.of_step(), "clip_norm": None, "clip_value": None, "nodes": None}
            wrapped = ShardedOptimizer(inner, algorithm, shards, group=model.group, lr="kept", **given)
            model.share_fixed(wrapped.driver.channel)
        except BaseException:
            shards.channel.close()
            raise
        super().__init__(settings.optimizer, wrapped)

    def _take_step(self, closure: Closure) -> Any:  # noqa: ANN401
        """Take a step of all ranks. Those of a node take it or leave it together."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._inner.take_options()
        self._local.take_gradients()
        attributes = self.wrapped.__dict__  # as GradScaler sets them
        found = bool(attributes.get(OVERFLOW, 0.0)) or self._may_overflow(attributes.get(LOSS_SCALE))
        found = bool(self._shards.verdict(Abort.unless(not found), self.driver.rounds))
        attributes[OVERFLOW] = torch.tensor(float(found))
        try:
            self.wrapped.step()
        finally:
            self._local.drop_gradients()
        return loss

    def _may_overflow(self, loss_scale: Tensor | None) -> bool:
        """Return whether the gradients are not finite, or so large that the user's optimizer could keep inf.

        Its state is of full parameters and not in what is taken back, and a step is for all shards or for none.
        """
        largest, clipping = self.wrapped.flat.largest_gradient(), self._inner.clipping
        if not math.isfinite(largest):
            return True
        if loss_scale is not None:
            largest /= float(loss_scale)
        if clipping is not None:
            largest = min(largest, clipping.norm or math.inf, clipping.value or math.inf)
        return may_overflow(self._inner, largest)
