"""Saving and restoring the state of a `DistributedOptimizer`: every memory, vectors by parameter name."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm, Memory
from laconic.drivers.distributed.arrivals import ProcessArrivals
from laconic.drivers.distributed.rounds import Processes
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.local_steps import LocalSteps
from laconic.training.server_model import ServerModel

VERSION = 3  # of the saved names


class HasState(Protocol):
    """The attributes of a `DistributedOptimizer` that are saved and restored."""

    algorithm: Algorithm
    driver: Processes
    flat: FlatParameters
    inner: Optimizer
    local: LocalSteps
    learning_rates: LearningRates
    server_model: ServerModel | None
    _active: list[bool]
    _steps_taken: int
    _used: list[bool]
    _start: Tensor | None
    _non_finite: bool


def saved(opt: HasState) -> dict[str, Any]:
    """Return the method's state of this rank, as tensors and data that JSON can hold."""
    driver, worker = opt.driver, opt.driver.worker
    return _identity(opt) | {
        "settings": opt.algorithm.settings(),
        "rounds": driver.rounds,
        "aborted_rounds": driver.aborted_rounds,
        "control_bytes": driver.channel.control_bytes,
        "active": list(opt._active),
        "steps_taken": opt._steps_taken,
        "used": list(opt._used),
        "start": None if opt._start is None else opt._start.clone(),
        "local": None if opt._start is None and opt.algorithm.replicas_equal else opt.flat.values(),  # differs by rank
        "non_finite": opt._non_finite,
        "initial_lrs": list(opt.learning_rates.initial),
        "worker": None if worker is None else _by_name(worker.me.memory, opt.flat),
        "meter": None if worker is None else worker.meter.saved(),
        "servers": {str(session.index): session.view.memory.saved() for session in driver.servers},
        "arrivals": _arrivals(opt),
        "server_model": None if opt.server_model is None else {
            "values": opt.server_model.flat.values(), "optimizer": opt.server_model.optimizer.state_dict(),
        },
    }  # fmt: skip


def restore(opt: HasState, state_dict: Mapping[str, Any]) -> None:
    """Check that the state is this rank's, then load all of it. Raises ValueError before anything changes."""
    if "laconic" not in state_dict:
        raise ValueError(
            "state_dict: no 'laconic' part: this is the state of an optimizer alone; load it into `inner` to start "
            "from it"
        )
    state = state_dict["laconic"]
    mine = _identity(opt)
    for key, value in mine.items():
        if state.get(key) != value:
            raise ValueError(
                f"state_dict: {key} is {state.get(key)!r:.200} in the saved state and {value!r:.200} here; each rank "
                "must load the state that the same rank of the same job saved"
            )
    driver, worker = opt.driver, opt.driver.worker
    opt.inner.load_state_dict({key: value for key, value in state_dict.items() if key != "laconic"})
    driver.rounds, driver.aborted_rounds = state["rounds"], state["aborted_rounds"]
    driver.channel.control_bytes += state["control_bytes"]  # the restart has sent some too
    opt._active, opt._used = list(state["active"]), list(state["used"])
    opt._steps_taken, opt._non_finite = state["steps_taken"], state["non_finite"]
    opt._start = None if state["start"] is None else state["start"].clone()
    if state["local"] is not None:
        opt.flat.set_values(state["local"])
    opt.learning_rates.initial = list(state["initial_lrs"])
    if worker is not None:
        worker.me.memory.restore(_flat_again(state["worker"], opt.flat))
        worker.meter.restore(state["meter"])
    for session in driver.servers:
        session.view.memory.restore(state["servers"][str(session.index)])
    if opt.server_model is not None:
        opt.server_model.flat.set_values(state["server_model"]["values"])
        opt.server_model.optimizer.load_state_dict(state["server_model"]["optimizer"])
        if isinstance(driver, ProcessArrivals) and driver.arrivals is not None:
            driver.restore(state["arrivals"], opt.server_model.flat.values())


def _arrivals(opt: HasState) -> dict[str, Any] | None:
    """Return the server's state of its workers, if the method is asynchronous and this rank serves; else None.

    Raises:
        RuntimeError: if workers are in the middle of a step.
    """
    driver = opt.driver
    return driver.saved() if isinstance(driver, ProcessArrivals) and driver.arrivals is not None else None


def _identity(opt: HasState) -> dict[str, Any]:
    """Return what must be equal when the state is loaded."""
    layout = opt.driver.layout
    return {
        "version": VERSION,
        "algorithm": opt.algorithm.name,
        "n_workers": layout.n_workers,
        "rank": opt.driver.channel.rank,
        "layout": layout.name,
        "local_steps": opt.local.many,
        "seed": opt.driver.job.seed,
        "dtype": str(opt.flat.dtype),
        "parameters": dict(zip(opt.flat.names, opt.flat.sizes, strict=True)),
    }


def _by_name(memory: Memory, flat: FlatParameters) -> dict[str, dict[str, Tensor] | Tensor]:
    """Return a worker's memories; vectors of the model's length are split by parameter name."""
    return {
        name: dict(zip(flat.names, (view.clone() for view in flat.views(value)), strict=True))
        if value.shape == (flat.d,) else value
        for name, value in memory.saved().items()
    }  # fmt: skip


def _flat_again(memories: Mapping[str, Mapping[str, Tensor] | Tensor], flat: FlatParameters) -> dict[str, Tensor]:
    return {
        name: value if isinstance(value, Tensor) else torch.cat([value[parameter] for parameter in flat.names])
        for name, value in memories.items()
    }
