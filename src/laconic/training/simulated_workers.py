"""The workers of a simulation. They share one model, and each has its own buffers and state of the optimizer."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Result, check_vector
from laconic.drivers.saved_data import check_data, check_mapping
from laconic.drivers.simulated.rounds import Simulated
from laconic.training.active_parameters import ActiveParameters
from laconic.training.flat_parameters import FlatParameters
from laconic.training.initial_gradient import LAST_TRY, hash_of_gradient, warn_of_equal
from laconic.training.second_gradient import SecondGradient
from laconic.training.server_model import ServerModel
from laconic.training.side_by_side import Forward, SideBySide


class SimulatedWorkers:
    """All workers of a simulation. See `Workers`."""

    is_one: ClassVar[bool] = False

    def __init__(
        self,
        model: torch.nn.Module,
        inner: Optimizer,
        flat: FlatParameters,
        active: ActiveParameters,
        driver: Simulated,
        server_model: ServerModel | None,
        *,
        side_by_side: int = 1,
    ) -> None:
        """Start all workers from the model's parameters and buffers, and from the optimizer's state.

        `side_by_side` backward passes run at once, as `check_side_by_side` admits.
        """
        self._inner = inner
        self._flat = flat
        self._active = active
        self._driver = driver
        self._server_model = server_model
        self._algorithm = driver.job.algorithm
        ranks = range(len(driver.workers))
        self._shown_buffers = list(model.buffers())  # the model's own; walking the modules takes time
        self.buffers = [[buffer.clone() for buffer in self._shown_buffers] for _ in ranks]
        """By worker, its buffers."""
        self.replicas = [] if self._algorithm.replicas_equal else [flat.values() for _ in ranks]
        """By worker, its parameters after the last exchange, (d,), if workers' models differ."""
        self.losses = [math.nan for _ in ranks]
        """By worker, its latest loss."""
        self._states = [_copied(inner.state) for _ in ranks]  # of the inner optimizer, if steps are local
        self._local: dict[int, Tensor] = {}  # by worker, its parameters between two exchanges
        self._loss_of: Callable[[int], Tensor] = _no_loss
        self._second: SecondGradient | None = None  # of the worker that computed last
        self._passes = SideBySide(side_by_side, model, flat.parameters, self._forward) if side_by_side > 1 else None
        self._initial: dict[int, str] | None = {} if len(ranks) > 1 else None  # hashes, until compared

    def begin_step(self, loss_of: Callable[[int], Tensor]) -> None:
        """Start a step, in which `loss_of(rank)` returns the loss of a worker at the current model."""
        self._loss_of = loss_of
        if self._passes is not None:
            self._passes.drop()
        if not self._driver.pulled:  # else a worker that is ahead does not compute
            self.losses = [math.nan for _ in self.losses]

    @property
    def present(self) -> Sequence[int]:
        """Ranks of the workers that are up in this step."""
        down = self._driver.injector.down_in(self._driver.rounds)
        return [worker.rank for worker in self._driver.workers if worker.rank not in down]

    @property
    def applying(self) -> Sequence[int]:
        """Ranks of the workers whose results are applied: all if their models differ, else one."""
        return range(len(self.replicas) or 1)

    def compute(self, rank: int) -> None:
        """Run the forward and backward passes of worker `rank`, with its own buffers.

        Raises:
            TypeError: what `loss_of` returned is no tensor.
            RuntimeError: no parameter got a gradient.
        """
        if self._passes is not None:
            self._take_gradients(self._passes, rank)
        else:
            self._compute_gradients(rank)
        has_gradient = self._flat.has_gradient()
        if True not in has_gradient:
            raise RuntimeError(
                f"step() without gradients: the loss of worker {rank} gives no parameter one; loss_of must compute it "
                "with the simulation's own model, not with a copy"
            )
        if self._initial is not None:
            self._note_initial(rank)
        self._active.note(has_gradient)

    def _take_gradients(self, passes: SideBySide, rank: int) -> None:
        forward, gradients = passes.take(rank, lambda: self.present)
        self.losses[rank], self.buffers[rank] = float(forward.loss.item()), forward.buffers
        for parameter, gradient in zip(self._flat.parameters, gradients, strict=True):
            parameter.grad = gradient

    def _forward(self, rank: int) -> Forward:
        assert self._passes is not None
        for buffer, own in zip(self._shown_buffers, self.buffers[rank], strict=True):
            self._passes.load(buffer, own)
        with torch.enable_grad():
            loss = self._loss_of(rank)
        if not isinstance(loss, Tensor):
            raise _no_tensor(loss, rank)
        return Forward(loss=loss, buffers=[buffer.clone() for buffer in self._shown_buffers])

    def _compute_gradients(self, rank: int) -> None:
        if self._driver.pulled:
            self._flat.set_values(self._driver.pulled[rank])
        for buffer, own in zip(self._shown_buffers, self.buffers[rank], strict=True):
            buffer.copy_(own)
        if self._algorithm.second_gradient:
            evaluate = partial(_backward, self._loss_of, rank)
            self._second = SecondGradient(self._flat, evaluate, lambda: self._shown_buffers, self._driver.pool)
        self._flat.drop_gradients()
        with torch.enable_grad():
            self.losses[rank] = _backward(self._loss_of, rank)
        self.buffers[rank] = [buffer.clone() for buffer in self._shown_buffers]

    def accept_equal_gradients(self) -> None:
        """Compare no first gradients."""
        self._initial = None

    def _note_initial(self, rank: int) -> None:
        assert self._initial is not None
        if rank not in self._initial and (text := hash_of_gradient(self._flat.parameters)):
            self._initial[rank] = text
        if len(self._initial) == len(self.buffers) or self._driver.rounds > LAST_TRY:
            hashes, self._initial = self._initial, None
            warn_of_equal(hashes, "worker")

    def gradient_at(self, rank: int) -> SecondGradient | None:
        """Return the second evaluation of the worker that has just computed, if the method needs it."""
        return self._second

    def start_of(self, rank: int, start: Tensor) -> Tensor:
        """Return worker `rank`'s parameters at the last exchange, (d,)."""
        return self.replicas[rank] if self.replicas else start

    def load(self, rank: int, start: Tensor) -> None:
        """Give the model worker `rank`'s parameters, and the inner optimizer its state."""
        own = self._local.pop(rank, None)
        self._flat.set_values(self.start_of(rank, start) if own is None else own)
        if own is not None:
            self._driver.pool.give([own])
        self._inner.state = self._states[rank]

    def store(self, rank: int) -> None:
        """Keep the parameters that worker `rank` has after a step that no exchange follows."""
        self._local[rank] = self._flat.values(out=self._driver.pool.take())

    def keep(self, rank: int) -> None:
        """Keep the parameters that worker `rank` has after an exchange of changes."""
        if self.replicas:
            self.replicas[rank] = self._flat.values()

    def end_step(self, start: Tensor | None, *, exchanged: bool) -> None:
        """Show `start` (d,), or without it the mean of the workers' models if they differ."""
        if exchanged:
            for own in self._local.values():  # of workers that missed the exchange
                self._driver.pool.give([own])
            self._local = {}
        if start is not None:
            self._flat.set_values(start)
        elif self.replicas:
            self._flat.set_values(torch.stack(self.replicas).mean(0))

    def take(self, values: Tensor) -> None:
        """Go on from parameters (d,) that a user has loaded into the model, where it is not the model that counts.

        Models that differ are replaced only before the first round: later, users may show one worker's in it.
        """
        if self._server_model is not None:
            self._server_model.take(values)
        if self._driver.pulled:
            self._driver.take(values)
        elif self.replicas and not self._driver.rounds:
            self.replicas = [values.clone() for _ in self.replicas]

    def pull(self, models: Mapping[int, Result]) -> None:
        """Take the newest models that the server has sent, by worker, and show the server's own."""
        assert self._server_model is not None, "an asynchronous method has its model at the server"
        self.replicas = [model for _, model in sorted(models.items()) if isinstance(model, Tensor)]
        self._flat.set_values(self._server_model.flat.values())

    def average_buffers(self) -> None:
        """Load the mean of the workers' floating-point buffers into the model, and worker 0's others."""
        for place, buffer in enumerate(self._shown_buffers):
            buffer.copy_(mean_buffer([buffers[place] for buffers in self.buffers]))

    def saved(self) -> dict[str, Any]:
        """Return the state between two steps, by worker."""
        replicas = [] if self._driver.pulled else self.replicas  # the driver saves what it has sent
        return {
            "buffers": [[buffer.clone() for buffer in own] for own in self.buffers],
            "replicas": [replica.clone() for replica in replicas], "losses": list(self.losses),
            "optimizers": [self._packed(state) for state in self._states],
            "local": {str(rank): values.clone() for rank, values in self._local.items()},
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a saved state is not of this model, or cannot go on with this number of workers."""
        check_mapping("the part 'workers'", saved)
        n, numbers = len(saved["buffers"]), {number for number, _ in self._numbered()}
        check_data("the workers' losses", saved["losses"], (int | float,) * n)
        check_data("the numbers of workers' parameters", [int(rank) for rank in saved["local"]], [range(n)])
        is_known = all(
            numbers >= state.keys() and all(isinstance(values, dict) for values in state.values())
            for state in saved["optimizers"]
        )
        if not is_known or len(saved["optimizers"]) != n or len(saved["replicas"]) not in (0, n):
            raise ValueError("state_dict: the workers' optimizers or models are not those of this model")
        if self.replicas and not self._driver.pulled and not saved["replicas"]:
            raise ValueError("state_dict: the workers' models are missing")
        like = self._flat.values()
        for vector in (*saved["replicas"], *saved["local"].values()):
            check_vector("a worker's parameters", vector, like)
        for own in saved["buffers"]:
            kinds = [(buffer.shape, buffer.dtype) for buffer in own]
            if kinds != [(buffer.shape, buffer.dtype) for buffer in self._shown_buffers]:
                raise ValueError("state_dict: the buffers are not those of this model")
        if saved["local"] and len(saved["buffers"]) != len(self.buffers):
            raise ValueError(
                f"state_dict: saved by {len(saved['buffers'])} workers between two exchanges; to go on with "
                f"{len(self.buffers)}, call exchange_steps() before state_dict()"
            )

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        With another number of workers, new ones start with the mean of the others' buffers and with worker 0's
        optimizer; if workers' models differ, all start at their mean.
        """
        n, n_saved = len(self.buffers), len(saved["buffers"])
        stayers = saved["buffers"][:n]
        new = [mean_buffer([own[place] for own in stayers]) for place in range(len(self._shown_buffers))]
        self.buffers = [[buffer.clone() for buffer in own] for own in stayers + [new] * (n - len(stayers))]
        self.losses = list(saved["losses"]) if n == n_saved else [math.nan] * n
        states = saved["optimizers"][:n]
        self._states = [self._unpacked(state) for state in states + states[:1] * (n - len(states))]
        self._local = {int(rank): self._driver.pool.take().copy_(values) for rank, values in saved["local"].items()}
        replicas = saved["replicas"]
        if replicas and n != n_saved:
            replicas = [torch.stack(replicas).mean(0)] * n
        self.replicas = list(self._driver.pulled) or [replica.clone() for replica in replicas]

    def _packed(self, state: Mapping[Tensor, Any]) -> dict[int, Any]:
        """Return a copy of one worker's state of the optimizer, by the parameter's number in it."""
        return {number: deepcopy(state[parameter]) for number, parameter in self._numbered() if parameter in state}

    def _unpacked(self, packed: Mapping[int, Any]) -> defaultdict[Tensor, dict[str, Any]]:
        numbered = dict(self._numbered())
        return _copied({numbered[number]: values for number, values in packed.items()})

    def _numbered(self) -> list[tuple[int, Tensor]]:
        return list(enumerate(parameter for group in self._inner.param_groups for parameter in group["params"]))


def mean_buffer(buffers: Sequence[Tensor]) -> Tensor:
    """Return the mean of the workers' values of a floating-point buffer, and worker 0's of another."""
    return torch.stack(list(buffers)).mean(0) if buffers[0].is_floating_point() else buffers[0]


def _backward(loss_of: Callable[[int], Tensor], rank: int) -> float:
    loss = loss_of(rank)
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except AttributeError:
        if isinstance(loss, Tensor):
            raise
        raise _no_tensor(loss, rank) from None
    return float(loss.item())


def _no_tensor(loss: object, rank: int) -> TypeError:
    advice = "a function without `return` returns None" if loss is None else "leave out .item() and .backward()"
    return TypeError(
        f"loss_of({rank}) returned {type(loss).__name__}; it must return the worker's loss, a tensor of one number: "
        f"{advice}"
    )


def _no_loss(rank: int) -> Tensor:
    raise AssertionError("no step has begun")


def _copied(state: Mapping[Tensor, dict[str, Any]]) -> defaultdict[Tensor, dict[str, Any]]:
    """Return a copy of an optimizer's state for one worker; its keys remain the model's parameters."""
    return defaultdict(dict, {parameter: deepcopy(values) for parameter, values in state.items()})
