"""A user's optimizer, as it looks to a rank that knows its own shard only."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.drivers.distributed.rounds import Processes
from laconic.drivers.distributed.shards import Shards
from laconic.fsdp.local_shards import LocalShards
from laconic.fsdp.sharded_model import ShardedModel
from laconic.training.clipping import Clipping
from laconic.training.distributed_optimizer import DistributedOptimizer


class ShardOptimizer(Optimizer):
    """Groups of local shards, with the options of the user's groups; its step is that of the user's optimizer."""

    clipping: Clipping | None = None
    """What clips the gradients that the user's optimizer applies."""

    def __init__(self, optimizer: Optimizer, local: LocalShards, model: ShardedModel) -> None:
        """Stand for `optimizer`, which has all trained parameters of the model."""
        self._of_user, self._local = optimizer, local
        place_of = {id(parameter): place for place, parameter in enumerate(model.parameters)}
        groups = []
        for group in optimizer.param_groups:
            trained = [place_of[id(each)] for each in group["params"] if id(each) in place_of]
            names = [model.names[place] for place in trained]
            groups.append({**group, "params": [local.tensors[place] for place in trained], "param_names": names})
        super().__init__(groups, {})

    def take_options(self) -> None:
        """Take the options that the user's groups have now, such as learning rates."""
        for own, group in zip(self.param_groups, self._of_user.param_groups, strict=True):
            own.update({name: value for name, value in group.items() if name not in ("params", "param_names")})

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Let the user's optimizer step along the gradients that the local shards have."""
        if self.clipping is not None:
            self.clipping.clip(self._local.tensors)
        self._local.give_all()
        self._of_user.step()


class ShardedOptimizer(DistributedOptimizer):
    """Takes steps on this rank's shard with those that have the same one; all shards of a replica abort together."""

    def __init__(self, inner: ShardOptimizer, algorithm: Algorithm, shards: Shards, **settings: Any) -> None:  # noqa: ANN401
        """Make the ranks agree; `settings` as for `DistributedOptimizer`. Collective."""
        self._in_step = partial(Processes, shards=shards)
        super().__init__(inner, algorithm, **settings)
