"""What is saved and loaded: a `DistributedOptimizer` or an attached method over ranks, or a `Simulation`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import nn
from torch.optim import Optimizer

from laconic.ddp import Handle
from laconic.drivers.distributed.meeting import refused_by
from laconic.drivers.distributed.state_exchange import show
from laconic.drivers.gathered import Schema
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.saved_job import OTHERS
from laconic.training.simulation import Simulation
from laconic.training.state_dict import KEY, split

INNER = "inner"
_PURPOSE = "for a checkpoint"
_MAX_BYTES = 1 << 18

T = TypeVar("T")
State = Mapping[str, Any]
"""Of one rank: the inner optimizer's state as "inner", the method's as "laconic"."""
_NO_OPTIMIZER: State = {"state": {}, "param_groups": []}
"""What stands for the inner optimizer of a handle that has none; an optimizer that loads it stays as it is."""


class Job(Protocol):
    """What trains, as one rank sees it."""

    rank: int
    size: int
    model: nn.Module | None

    def gather(self, value: Any, schema: Schema) -> list[Any]:  # noqa: ANN401 - JSON
        """Return the values of all ranks, by rank. Collective."""

    def show(self, data: bytes | None, n_bytes: int) -> bytes:
        """Return rank 0's bytes on every rank. Collective."""

    def own(self) -> dict[str, Any]:
        """Return this rank's state. Raises RuntimeError if it cannot be saved now."""

    def wanted(self, n_saved: int) -> Sequence[int]:
        """Return the ranks whose states this one reads, of those that have saved; its model is that of the first."""

    def check(self, states: Mapping[int, State]) -> None:
        """Raise ValueError for states that this rank cannot take. Not collective."""

    def load(self, states: Mapping[int, State]) -> None:
        """Go on from the states that were wanted. Collective. Raises ValueError; nothing has changed then."""


class OverRanks:
    """One rank of a `DistributedOptimizer`, or of a method that is attached to a model."""

    def __init__(self, opt: DistributedOptimizer | Handle) -> None:
        """Save and load `opt`."""
        self._opt = opt
        self._channel = opt.driver.channel
        self.rank, self.size, self.model = self._channel.rank, self._channel.size, opt.model

    def gather(self, value: Any, schema: Schema) -> list[Any]:  # noqa: ANN401 - JSON
        """Return the values of all ranks, by rank."""
        return self._channel.gather(value, _PURPOSE, schema, _MAX_BYTES)

    def show(self, data: bytes | None, n_bytes: int) -> bytes:
        """Return rank 0's bytes on every rank."""
        return show(self._channel, data, 0, n_bytes, _PURPOSE)

    def own(self) -> dict[str, Any]:
        """Return this rank's state."""
        assert self._opt.checkpoints is not None
        inner, part = self._opt.checkpoints.own()
        return {INNER: inner if self._has_optimizer else _NO_OPTIMIZER, KEY: part}

    @property
    def _has_optimizer(self) -> bool:
        return isinstance(self._opt, DistributedOptimizer) or self._opt.optimizer is not None

    def wanted(self, n_saved: int) -> Sequence[int]:
        """Return the ranks whose states this one reads: all ranks together read all of them."""
        return range(self.rank, n_saved, self.size) or [self.rank % n_saved]

    def check(self, states: Mapping[int, State]) -> None:
        """Raise ValueError for the state of an optimizer, such as moments, where none is known that could take it."""
        if not self._has_optimizer and any(state[INNER]["state"] for state in states.values()):
            raise ValueError(
                "it has the state of an optimizer, and the handle has none that could take it; pass optimizer= to "
                "laconic.ddp.attach"
            )

    def load(self, states: Mapping[int, State]) -> None:
        """Go on from the states that were wanted."""
        own, *others = states
        part = {**states[own][KEY], **({OTHERS: {rank: states[rank][KEY] for rank in others}} if others else {})}
        if isinstance(self._opt, DistributedOptimizer):
            self._opt.load_state_dict({**_inner_of(states[own], self._opt.inner), KEY: part})
        elif states[own][INNER]["param_groups"]:
            self._opt.load_with_optimizer({**states[own][INNER], KEY: part})
        else:
            self._opt.load_state_dict(part)


class InOneProcess:
    """All workers of a `Simulation`."""

    rank, size = 0, 1

    def __init__(self, simulation: Simulation) -> None:
        """Save and load `simulation`."""
        self._simulation = simulation
        self.model: nn.Module | None = simulation.model

    def gather(self, value: Any, schema: Schema) -> list[Any]:  # noqa: ANN401 - JSON
        """Return the value."""
        return [value]

    def show(self, data: bytes | None, n_bytes: int) -> bytes:
        """Return the bytes."""
        assert data is not None
        return data

    def own(self) -> dict[str, Any]:
        """Return the state of all workers."""
        inner, part = split(self._simulation.state_dict())
        return {INNER: inner, KEY: part}

    def wanted(self, n_saved: int) -> Sequence[int]:
        """Return all ranks that have saved."""
        return range(n_saved)

    def check(self, states: Mapping[int, State]) -> None:
        """Raise nothing: a simulation has an optimizer."""

    def load(self, states: Mapping[int, State]) -> None:
        """Go on from the states that were wanted."""
        inner = self._simulation.inner
        others = {rank: {**state[KEY], INNER: _inner_of(state, inner)} for rank, state in states.items() if rank}
        part = {**states[0][KEY], **({OTHERS: others} if others else {})}
        self._simulation.load_state_dict({**_inner_of(states[0], inner), KEY: part})


def _inner_of(state: State, inner: Optimizer) -> Mapping[str, Any]:
    """Return the inner optimizer's state in a saved one; that of `inner` as it is if none was saved."""
    saved: Mapping[str, Any] = state[INNER]
    return saved if saved["param_groups"] else inner.state_dict()


def agreed_arguments(job: Job, purpose: str, check: Callable[[], T]) -> T:
    """Return what a check of this rank's arguments returns, when no rank has refused its own. Collective.

    Args:
        job: the job, which all ranks have.
        purpose: for the errors of the others, such as "to save a checkpoint".
        check: raises for a wrong argument.

    Raises:
        SetupError: another rank refuses its arguments; it has the rank's error.
    """
    found: list[T] = []
    error: Exception | None = None
    try:
        found.append(check())
    except Exception as refused:
        error = refused
    shown = job.gather("" if error is None else f"{type(error).__name__}: {error!s:.1000}", str)
    if error is not None:
        raise error
    for rank, text in enumerate(shown):
        if text:
            raise refused_by(f"rank {rank}", purpose, text)
    return found[0]


def job_of(opt: object) -> Job:
    """Return a job. Raises TypeError for what is none."""
    if isinstance(opt, Handle) and opt.holds_shards:
        raise TypeError(
            "checkpoint: opt is a handle of laconic.fsdp, whose ranks have a shard each; save handle.state_dict() of "
            "every rank beside the model's own shards, as torch.distributed.checkpoint writes them"
        )
    if isinstance(opt, DistributedOptimizer) or (isinstance(opt, Handle) and opt.checkpoints is not None):
        return OverRanks(opt)
    if isinstance(opt, Simulation):
        return InOneProcess(opt)
    raise TypeError(
        f"checkpoint: opt is a {type(opt).__name__}; it must be a laconic.DistributedOptimizer, a laconic.Simulation, "
        "or the handle that laconic.ddp.attach returned for a model in DistributedDataParallel"
    )
