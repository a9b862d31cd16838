"""A method that is carried by the communication hook: its rounds run while the backward pass goes on."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from laconic.contract import Algorithm
from laconic.ddp.backward_training import BackwardTraining
from laconic.ddp.bucket_rounds import BucketRounds
from laconic.ddp.carriable import overlaps
from laconic.ddp.replaced_step import Closure, ReplacedStep
from laconic.ddp.settings import Settings
from laconic.ddp.slices import slices_of
from laconic.ddp.step_watch import StepWatch
from laconic.ddp.trampoline import Trampoline
from laconic.drivers.distributed.agreement import Settings as Agreed
from laconic.drivers.distributed.sliced_rounds import SlicedProcesses
from laconic.torch_compat import note_step
from laconic.training.active_parameters import ActiveParameters, UsedByRanks
from laconic.training.agreed_settings import agreed_settings
from laconic.training.checkpoints import Checkpoints
from laconic.training.claims import Claim
from laconic.training.clipping import clipping_of
from laconic.training.flat_parameters import FlatParameters
from laconic.training.kernel_preparation import KernelPreparation
from laconic.training.learning_rates import LearningRates
from laconic.training.parameter_checks import check_parameters


class HookCarrier:
    """The rounds of a method in the backward passes of a model."""

    def __init__(
        self, ddp: DistributedDataParallel, trampoline: Trampoline, algorithm: Algorithm, settings: Settings
    ) -> None:
        """Make the ranks agree, and begin to take the model's buckets. Collective."""
        trained = [parameter for parameter in ddp.module.parameters() if parameter.requires_grad]
        listed = torch.optim.SGD(trained, lr=1.0)  # never steps: it lists the parameters in the model's order
        check_parameters(listed, ddp.module, refuse_sparse=True)
        self._flat = flat = FlatParameters(listed, ddp.module)
        self.algorithm = algorithm
        self._claim = Claim(flat, ddp.process_group)
        self._claim.check()
        clipping = clipping_of(settings.clip_norm, settings.clip_value, algorithm, flat, ddp.module)
        optimizer = settings.optimizer
        inner = listed if optimizer is None else optimizer
        learning_rates = LearningRates(inner, algorithm, "kept")
        self.overlap = overlaps(algorithm, settings)
        slices = self._slices(ddp)
        self.n_slices = len(slices)
        self._active = ActiveParameters(flat.sizes, used_by_ranks := UsedByRanks())
        self.driver = self._connected(ddp, slices, settings, agreed_settings(listed, flat, ()))
        used_by_ranks.gather_over(self.driver)
        self._lr = learning_rates.now
        self.checkpoints = Checkpoints(
            inner, self.driver, BackwardTraining(self._active, learning_rates), flat, None,
            [part.job.spec.offset for part in self.driver.sliced.slices],
        )  # fmt: skip
        self._watch = StepWatch(ddp, algorithm, flat.parameters)
        self.rounds = BucketRounds(
            self.driver, flat, self._active, slices, watch=self._watch, begin=self._begin,
            loss_scale=settings.loss_scale, clipping=clipping,
        )  # fmt: skip
        self._step = None if optimizer is None else ReplacedStep(optimizer, self._step_unless_aborted)
        self._claim.take()
        trampoline.rounds = self.rounds

    def _connected(
        self, ddp: DistributedDataParallel, slices: Sequence[range], settings: Settings, agreed: Agreed
    ) -> SlicedProcesses:
        """Return what moves packets, when the ranks have agreed, and have rank 0's parameters."""
        flat, algorithm = self._flat, self.algorithm
        parameters = flat.values_by_torch()
        driver = SlicedProcesses(
            algorithm, bounds=[0, *accumulate(sum(flat.sizes[place] for place in run) for run in slices)],
            parameters=parameters, spec=flat.spec, group=ddp.process_group, active=self._active,
            layout=settings.layout, seed=settings.seed, timeout_s=settings.timeout_s,
            nodes=settings.nodes,
            agreed={"exchange in the backward pass": True, **agreed, **settings.agreed()},
            kernels=KernelPreparation(
                algorithm=algorithm, flat=flat, local_steps=1, clip=(settings.clip_norm, settings.clip_value),
                speaks=not dist.get_rank(ddp.process_group),
            ),
        )  # fmt: skip
        flat.set_values(parameters)
        return driver

    def _slices(self, ddp: DistributedDataParallel) -> list[range]:
        flat = self._flat
        if not self.overlap:
            return [range(len(flat.parameters))]
        n_bytes = [parameter.nbytes for parameter in flat.parameters]
        return slices_of(n_bytes, flat.sizes, ddp.bucket_bytes_cap, from_front=ddp.find_unused_parameters)

    def _begin(self) -> float:
        """Begin a round. Returns the learning rate of the step that follows."""
        self.checkpoints.others = None  # they were of the round before
        return self._lr()

    @property
    def aborted(self) -> bool:
        """Whether the last round was aborted."""
        return self.rounds.aborted

    def _step_unless_aborted(self, closure: Closure, step: Callable[..., Any]) -> Any:  # noqa: ANN401
        """Take the optimizer's step, unless the round was aborted, so that the gradients are NaN."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.aborted:
            step()
        elif self._step is not None:
            note_step(self._step.optimizer)
        return loss

    def close(self) -> None:
        """Leave the group. Not collective."""
        self.driver.close()
        if self._step is not None:
            self._step.restore()
        self._watch.close()
        self._claim.lost = "the method is detached"
