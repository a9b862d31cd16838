"""A method that is carried by the communication hook: its rounds run while the backward pass goes on."""

import torch
from torch.nn.parallel import DistributedDataParallel

from laconic.contract import Algorithm
from laconic.ddp.backward_carrier import BackwardCarrier, Trained
from laconic.ddp.bucket_rounds import BucketRounds
from laconic.ddp.carriable import overlaps
from laconic.ddp.settings import Settings
from laconic.ddp.slices import slices_of
from laconic.ddp.step_watch import StepWatch
from laconic.ddp.trampoline import Trampoline
from laconic.training.flat_parameters import FlatParameters


class HookCarrier(BackwardCarrier[BucketRounds]):
    """The rounds of a method over the buckets of a model."""

    def __init__(
        self, ddp: DistributedDataParallel, trampoline: Trampoline, algorithm: Algorithm, settings: Settings
    ) -> None:
        """Make the ranks agree, and begin to take the model's buckets. Collective."""
        self.overlap = overlaps(algorithm, settings)
        trained = [parameter for parameter in ddp.module.parameters() if parameter.requires_grad]
        listed = torch.optim.SGD(trained, lr=1.0)
        super().__init__(
            Trained(listed=listed, module=ddp.module, group=ddp.process_group), algorithm, settings,
            slices=lambda flat: _slices(ddp, flat) if self.overlap else [range(len(flat.parameters))],
            watch=lambda: StepWatch(ddp, algorithm, trained), rounds=BucketRounds,
        )  # fmt: skip
        trampoline.rounds = self.rounds


def _slices(ddp: DistributedDataParallel, flat: FlatParameters) -> list[range]:
    return slices_of(ddp, [parameter.nbytes for parameter in flat.parameters], flat.sizes)
