"""A method whose rounds run in the backward passes of a model, whatever hands over its gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.ddp.backward_training import BackwardTraining
from laconic.ddp.replaced_step import Closure, ReplacedStep
from laconic.ddp.settings import Settings
from laconic.ddp.slice_rounds import SliceRounds
from laconic.ddp.step_watch import StepWatch
from laconic.drivers.distributed.agreement import Settings as Agreed
from laconic.drivers.distributed.shards import Shards
from laconic.drivers.distributed.sliced_rounds import SlicedProcesses
from laconic.torch_compat import note_step
from laconic.training.active_parameters import ActiveParameters, UsedByRanks
from laconic.training.agreed_settings import agreed_settings
from laconic.training.buffers import Buffers, SharedBuffers
from laconic.training.checkpoints import Checkpoints
from laconic.training.claims import Claim
from laconic.training.clipping import clipping_of
from laconic.training.flat_parameters import FlatParameters
from laconic.training.kernel_preparation import KernelPreparation
from laconic.training.learning_rates import LearningRates
from laconic.training.parameter_checks import check_parameters
from laconic.training.replica_check import ReplicaCheck


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is trained, and with whom."""

    listed: Optimizer
    """Never steps: it lists the tensors that are exchanged, in the model's order."""
    module: nn.Module | None
    """Gives their names, if `listed` does not."""
    group: dist.ProcessGroup
    """The ranks that exchange."""
    shards: Shards | None = None
    """The ranks that hold the other shards of the model, if it has shards."""


Rounds = TypeVar("Rounds", bound=SliceRounds)


class BackwardCarrier(Generic[Rounds]):
    """The rounds of a method in the backward passes of a model."""

    overlap = False

    def __init__(
        self,
        trained: Trained,
        algorithm: Algorithm,
        settings: Settings,
        *,
        slices: Callable[[FlatParameters], list[range]],
        watch: Callable[[], StepWatch],
        rounds: Callable[..., Rounds],
    ) -> None:
        """Make the ranks agree. Collective.

        Args:
            trained: what is trained.
            algorithm: the method.
            settings: the user's.
            slices: returns the parameters of each slice.
            watch: makes what counts the rounds of a step.
            rounds: makes them, with the arguments of `SliceRounds`.
        """
        listed, module, group, shards = trained.listed, trained.module, trained.group, trained.shards
        check_parameters(listed, module, refuse_sparse=True)
        self._flat = flat = FlatParameters(listed, module)
        self.algorithm = algorithm
        self._claim = Claim(flat, group)
        self._claim.check()
        clip = settings.clip_norm, settings.clip_value
        clipping = clipping_of(*clip, algorithm, flat, module, None if shards is None else shards.norm)
        optimizer = settings.optimizer
        inner = listed if optimizer is None else optimizer
        learning_rates = LearningRates(inner, algorithm, "kept")
        runs = slices(flat)
        self.n_slices = len(runs)
        self._active = ActiveParameters(flat.sizes, used_by_ranks := UsedByRanks())
        self.driver = self._connected(trained, runs, settings, agreed_settings(listed, flat, ()))
        used_by_ranks.gather_over(self.driver)
        self._lr = learning_rates.now
        self.checkpoints = Checkpoints(
            inner if shards is None else listed, self.driver, BackwardTraining(self._active, learning_rates), flat,
            None, [part.job.spec.offset for part in self.driver.sliced.slices],
        )  # fmt: skip
        self._buffers = SharedBuffers.of(
            module, self.driver.channel, "local", trains=True, n_workers=self.driver.channel.size
        )
        self.replica_check = ReplicaCheck(
            self.driver, inner, flat, every=settings.check_every if shards is None else 0, replicas=settings.replicas,
            compares_parameters=True, compares_options=optimizer is not None,
        )  # fmt: skip
        self._watch = watch()
        self.rounds = rounds(
            self.driver, flat, self._active, runs, watch=self._watch, begin=self._begin, after=self._after,
            loss_scale=settings.loss_scale, clipping=clipping,
        )  # fmt: skip
        self._step = None if optimizer is None else ReplacedStep(optimizer, self._step_unless_aborted)
        self._claim.take()

    def _connected(
        self, trained: Trained, slices: Sequence[range], settings: Settings, agreed: Agreed
    ) -> SlicedProcesses:
        """Return what moves packets, when the ranks have agreed, and have rank 0's parameters."""
        flat, algorithm = self._flat, self.algorithm
        parameters = flat.values_by_torch()
        driver = SlicedProcesses(
            algorithm, bounds=[0, *accumulate(sum(flat.sizes[place] for place in run) for run in slices)],
            parameters=parameters, spec=flat.spec, group=trained.group, active=self._active,
            layout=settings.layout, seed=settings.seed, timeout_s=settings.timeout_s,
            nodes=settings.nodes, shards=trained.shards,
            agreed={"exchange in the backward pass": True, **agreed, **settings.agreed()},
            kernels=KernelPreparation(
                algorithm=algorithm, flat=flat, local_steps=1, clip=(settings.clip_norm, settings.clip_value),
                speaks=not dist.get_rank(trained.group) and (trained.shards is None or not trained.shards.number),
            ),
        )  # fmt: skip
        flat.set_values(parameters)
        return driver

    def _begin(self) -> float:
        """Begin a round. Returns the learning rate of the step that follows."""
        self.checkpoints.others = None  # they were of the round before
        return self._lr()

    @torch.no_grad()
    def _after(self) -> None:
        """Compare the replicas, where a round has ended; the step that follows has not begun."""
        check = self.replica_check
        if check.is_start:
            check.at_start(0)
        elif check.every and self.driver.rounds % check.every == 0:
            check.check()

    def share_buffers(self, how: Buffers | None = None) -> None:
        """Make the buffers equal on all ranks; see `Handle.share_buffers`."""
        if self._buffers is not None:
            self._buffers.share(how)

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
