"""What `attach` returns."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Never, Protocol

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.ddp.carriable import check_attachable, check_carriable, check_trained, goes_by_step
from laconic.ddp.hook_carrier import HookCarrier
from laconic.ddp.idle_carrier import IdleCarrier
from laconic.ddp.modes import check_modes
from laconic.ddp.settings import Settings
from laconic.ddp.step_carrier import OptimizerCarrier, StepCarrier
from laconic.ddp.trampoline import Trampoline
from laconic.drivers.distributed.door import ATTACH, entered
from laconic.drivers.distributed.meeting import refusals_shown
from laconic.drivers.distributed.rounds import TOPIC
from laconic.statements import state_once
from laconic.telemetry.traffic import Traffic
from laconic.training.automatic import PLAIN, PLAIN_LAYOUT, Automatic, Method, Undecided, load_chosen, plain
from laconic.training.buffers import Buffers, check_share
from laconic.training.checkpoints import Checkpoints
from laconic.training.replica_check import ReplicaCheck
from laconic.training.state_dict import read_part, split


class Carrier(Protocol):
    """What runs a method's rounds."""

    @property
    def algorithm(self) -> Algorithm:
        """The method."""

    @property
    def driver(self) -> Any:  # noqa: ANN401
        """What moves its packets."""

    @property
    def overlap(self) -> bool:
        """Whether rounds begin while the backward pass goes on."""

    @property
    def n_slices(self) -> int:
        """Number of slices of the model with packets of their own."""

    @property
    def aborted(self) -> bool:
        """Whether the last round was aborted."""

    @property
    def checkpoints(self) -> Checkpoints | None:
        """What saves and loads the method's state; None if it has none."""

    @property
    def replica_check(self) -> ReplicaCheck | None:
        """What compares the replicas; None if there are none."""

    def share_buffers(self, how: Buffers | None = None) -> None:
        """Make the buffers equal on all ranks; see `Handle.share_buffers`."""

    def close(self) -> None:
        """Carry the method no longer."""


class Detachable(Protocol):
    """What hands gradients to a method's rounds."""

    rounds: Any
    """Who takes them; None for the plain mean."""
    before: Callable[[], None] | None
    """Called once before gradients are handed over; None for nothing."""


class Handle:
    """A method that is attached to a model in DistributedDataParallel; see `attach`, which makes it."""

    holds_shards = False
    """Whether each rank has a part of the model, so that its state is one of several."""

    def __init__(self, ddp: DistributedDataParallel | None, method: Method, settings: Settings) -> None:
        """Begin to carry a method. Collective. Without a model, one worker is alone."""
        self._ddp, self._settings, self._as_given = ddp, settings, settings
        self._trampoline: Detachable | None = None
        self.automatic: Automatic | None = None
        """What chooses the method, and what it has chosen; None if a method was given."""
        self._undecided: Undecided | None = None
        with entered(ATTACH):
            self._carrier = self._begun(method)
        self._is_attached = True

    def _begun(self, method: Method) -> Carrier:
        """Return what carries a method, or plain all-reduce until one is chosen. Collective."""
        with self._refusals():
            self.automatic = automatic = self._automatic_of(method)
        if automatic is None:
            assert isinstance(method, Algorithm), "it was checked"
            return self._carrier_of(method)
        self._settings = replace(self._settings, layout=PLAIN_LAYOUT, agreed_choice=automatic.agreed())
        carrier = self._carrier_of(plain(), f"a method that the earliest backward pass chooses, until then {PLAIN},")
        automatic.group = self._group
        self.undecided = None if automatic.group is None else Undecided(self, automatic, self._go_on)
        return carrier

    def _automatic_of(self, method: object) -> Automatic | None:
        """Return what chooses the method; None if one is given. Raises ValueError or TypeError for a wrong one."""
        return check_attachable(method, self._settings)

    @property
    def _group(self) -> dist.ProcessGroup | None:
        """The ranks that exchange; None if there is one alone."""
        return None if self._ddp is None else self._ddp.process_group

    def _refusals(self) -> AbstractContextManager[None]:
        """Return what shows the others what this rank refuses."""
        return nullcontext() if self._ddp is None else refusals_shown(self._ddp.process_group, TOPIC)

    @property
    def undecided(self) -> Undecided | None:
        """What makes the choice in the earliest backward pass; None if it is made, or a method was given."""
        return self._undecided

    @undecided.setter
    def undecided(self, undecided: Undecided | None) -> None:
        self._undecided = undecided
        if self._trampoline is not None:
            self._trampoline.before = None if undecided is None else undecided.measure

    def _go_on(self, method: Algorithm, layout: str) -> None:
        """Go on with a method that was chosen."""
        self.detach()
        self._settings = replace(self._settings, layout=layout)
        with entered(ATTACH):
            self._carrier = self._carrier_of(method)
        self._is_attached = True

    def _carrier_of(self, method: Algorithm, called: str = "") -> Carrier:
        ddp, settings = self._ddp, self._settings
        if ddp is None:
            check_carriable(method, settings)
            state_once(
                f"{method.name} exchanges nothing: one worker trains, and no DistributedDataParallel wraps its model"
            )
            return IdleCarrier(method)
        with self._refusals():
            check_carriable(method, settings)
            check_trained(ddp.module, settings.optimizer)
            check_modes(ddp)
            self._trampoline = trampoline = Trampoline.of(ddp)
            trampoline.check_free()
            kind = StepCarrier if goes_by_step(method, settings) else HookCarrier
            carrier: Carrier = kind(ddp, trampoline, method, settings)
        say_when(carrier, called)
        return carrier

    @property
    def algorithm(self) -> Algorithm:
        """The method."""
        return self._carrier.algorithm

    @property
    def driver(self) -> Any:  # noqa: ANN401
        """What moves its packets; `laconic.observe(handle, ...)` asks for it."""
        return self._carrier.driver

    @property
    def overlap(self) -> bool:
        """Whether slices of the model are exchanged while the backward pass goes on, or all at its end."""
        return self._carrier.overlap

    @property
    def n_slices(self) -> int:
        """Number of slices of the model with packets of their own."""
        return self._carrier.n_slices

    @property
    def aborted(self) -> bool:
        """Whether the last round was aborted, since some rank met inf or NaN: then the gradients are NaN on all."""
        return self._carrier.aborted

    @property
    def traffic(self) -> Traffic:
        """This rank's counters."""
        traffic: Traffic = self.driver.traffic
        return traffic

    def total_traffic(self) -> Traffic:
        """Return the sum of all ranks' counters, on every rank. Collective, between two backward passes."""
        traffic: Traffic = self.driver.total_traffic(self.traffic)
        return traffic

    @property
    def checkpoints(self) -> Checkpoints | None:
        """What saves and loads the method's state; None where one worker is alone."""
        return self._carrier.checkpoints

    @property
    def model(self) -> nn.Module | None:
        """The module that DistributedDataParallel wraps."""
        model: nn.Module | None = None if self._ddp is None else self._ddp.module
        return model

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer that `attach` was given; None if it was given none."""
        return self._settings.optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the method, of this rank or as it was gathered: plain tensors and values.

        Memories are saved by the parameters' names, without what wrappers add to them. It never waits.
        """
        return {} if self.checkpoints is None else self.checkpoints.part()

    def gather_state(self, rank: int | None = None) -> dict[str, Any]:
        """Gather the state of all ranks, on `rank` or on every one; until the next round, `state_dict()` returns it.

        It needs memory for what all ranks keep; the other ranks get their own state. Collective, between two backward
        passes. Raises ValueError for a wrong rank, PeerLostError.
        """
        if self.checkpoints is not None:
            self.checkpoints.gather(rank)
        return self.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. Collective, between two backward passes.

        Where each rank loads what it saved, or all load a gathered state, training goes on bit for bit. Of the state of
        a `DistributedOptimizer` the method's part is taken. A state of one rank, or of another number of ranks, is
        taken as far as it goes, and a statement says how far: not at all where nothing is exchanged.

        Raises PeerLostError, and ValueError for a state of another method or model, or with values that cannot be:
        then nothing has changed on any rank.
        """
        if self.checkpoints is not None:
            load_chosen(self, lambda: read_part(state_dict), lambda: self._loading.load_part(state_dict))
        elif state_dict:
            state_once(f"load_state_dict: the state is left out, since {self.algorithm.name} exchanges nothing here")

    def load_with_optimizer(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from the state of the optimizer and the method's in one, as `load_state_dict` does. Collective."""
        load_chosen(self, lambda: split(state_dict)[1], lambda: self._loading.load(state_dict))

    @property
    def _loading(self) -> Checkpoints:
        assert self.checkpoints is not None
        assert self._carrier.replica_check is not None
        self._carrier.replica_check.is_start = True  # weights that one rank alone has loaded are noticed
        return self.checkpoints

    def share_buffers(self, how: Buffers | None = None) -> None:
        """Make the model's buffers, such as batch-norm statistics, equal on all ranks: before evaluation.

        Collective, between two backward passes. DistributedDataParallel gives all ranks rank 0's in each forward pass
        of training, unless it has broadcast_buffers=False.

        Args:
            how: "average" for the ranks' mean of those of floats, or "rank0"; None for "rank0".

        Raises:
            ValueError: for another `how`, or a model in shards.
            PeerLostError: if a rank is lost.
        """
        if self.holds_shards:
            raise ValueError("share_buffers: it is for models in DistributedDataParallel; here nodes keep their own")
        if self._ddp is not None:
            check_share(how, self._ddp)
            self._carrier.share_buffers(how)

    def replace(self, method: Algorithm) -> None:
        """Go on with another method, whose memories are empty. Collective, between two backward passes.

        Raises as `attach` does; then the model goes on with the plain mean.
        """
        self.detach()
        self.automatic, self._settings = None, self._as_given
        with entered(ATTACH):
            self._carrier = self._carrier_of(method)
        self._is_attached = True

    def detach(self) -> None:
        """Let the model go back to the plain mean of the gradients. Every rank calls it after the same step."""
        if self._is_attached:
            self.undecided = None
        if self._trampoline is not None and self._is_attached:
            self._trampoline.rounds = None
        self._is_attached = False
        self._carrier.close()

    def __reduce_ex__(self, protocol: Any) -> Never:  # noqa: ANN401
        """Raise TypeError: connections to other ranks have no copy. `copy` and `pickle` call it."""
        raise TypeError(
            "a handle of laconic holds connections to the other ranks and can be neither copied nor pickled; save "
            "handle.state_dict(), and attach to the copy of a model anew"
        )

    def __repr__(self) -> str:
        when = _when(self._carrier) if self._is_attached else "detached"
        package = type(self).__module__.removesuffix(".handle")
        return f"{package}.Handle({self.algorithm!r}: {when})"


def say_when(carrier: Carrier, called: str = "") -> None:
    """State, on one rank, when a method exchanges, by another name if it is given."""
    if carrier.driver.speaks:
        state_once(f"{called or carrier.algorithm.name} is attached: {_when(carrier)}")


def _when(carrier: Carrier) -> str:
    if isinstance(carrier, IdleCarrier):
        return "exchanges nothing"
    if isinstance(carrier, OptimizerCarrier):
        return "exchanges in the optimizer's step"
    if not carrier.overlap:
        return "exchanges at the end of the backward pass"
    return f"exchanges {carrier.n_slices} slice{'s' * (carrier.n_slices != 1)} while the backward pass goes on"
