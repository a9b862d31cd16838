"""A method that is carried by the backward passes of a sharded model."""

from collections.abc import Sequence
from functools import partial

import torch

from laconic.contract import Algorithm
from laconic.ddp.backward_carrier import BackwardCarrier, Trained
from laconic.ddp.carriable import overlaps
from laconic.ddp.settings import Settings
from laconic.ddp.step_watch import StepWatch
from laconic.drivers.distributed.shards import Shards
from laconic.fsdp.local_shards import LocalShards
from laconic.fsdp.shard_rounds import ShardRounds
from laconic.fsdp.sharded_model import ShardedModel
from laconic.torch_compat import timeout_s_of

_ADVICE = (
    "let model.set_requires_gradient_sync(False) stand before all passes but the last, and do not let gradients that "
    "are thrown away reach these parameters"
)


class ShardCarrier(BackwardCarrier[ShardRounds]):
    """The rounds of a method over this rank's shard."""

    def __init__(self, model: ShardedModel, algorithm: Algorithm, settings: Settings) -> None:
        """Make the ranks agree. Collective."""
        timeout_s = timeout_s_of(model.group) if settings.timeout_s is None else settings.timeout_s
        self.overlap = overlaps(algorithm, settings)
        shards = Shards(model.shard_ranks, timeout_s)
        try:
            local = LocalShards(model.parameters, model.fixed, model.root)
            listed = torch.optim.SGD([*zip(model.names, local.tensors, strict=True)], lr=1.0)
            super().__init__(
                Trained(listed=listed, module=None, group=model.group, shards=shards), algorithm, settings,
                slices=lambda flat: _slices(model, flat.sizes) if self.overlap else [range(len(flat.sizes))],
                rounds=partial(ShardRounds, local),
                watch=lambda: StepWatch(None, algorithm, model.parameters, _ADVICE),
            )  # fmt: skip
            model.share_fixed(self.driver.channel)
        except BaseException:
            shards.channel.close()
            raise


def _slices(model: ShardedModel, sizes: Sequence[int]) -> list[range]:
    """Return the parameters of each slice: those of a group, with groups beside it of which this rank has nothing."""
    runs: list[range] = []
    for size in model.group_sizes:
        start = runs[-1].stop if runs else 0
        if runs and not (sum(sizes[start : start + size]) and sum(sizes[each] for each in runs[-1])):
            runs[-1] = range(runs[-1].start, start + size)
        else:
            runs.append(range(start, start + size))
    return runs
