"""One step of training, over processes and in a simulation: gradient in, parameters out.

| the method | one step |
|---|---|
| reads gradients | one round with the gradients; then the inner optimizer steps along its result |
| reads changes, or takes local steps | the inner optimizer steps; the last step runs a round with the change |
| reads the change of a step of plain SGD | one round with that change, given by the gradient; no step is taken |
| is asynchronous | each worker's gradient goes to the server; the answer is the newest model |
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm, InParts, Result, check_vector
from laconic.drivers.saved_data import NUMBER, check_data, check_mapping
from laconic.protocol.abort import Abort
from laconic.protocol.round_inputs import Inputs, VectorSource
from laconic.protocol.round_result import RoundResult
from laconic.torch_compat import apply_as_step, note_step
from laconic.training.aborted_rounds import AbortedRounds, Rounds
from laconic.training.active_parameters import ActiveParameters
from laconic.training.clipping import Clipping
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.local_steps import LocalSteps
from laconic.training.step_guard import StepGuard
from laconic.training.vector_sources import VectorCopy
from laconic.training.worker_weights import weighted


class Driver(Rounds, Protocol):
    """What a step needs of a driver."""

    aborted_rounds: int
    """Number of rounds aborted because of inf or NaN; single gradients if the method is asynchronous."""

    def check_results(self, fits: Callable[[Result, Tensor], bool], largest: float) -> None:
        """Abort every round whose result does not fit the parameters, or whose answers have numbers above `largest`."""

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Run one round; `inputs_of` is called with the rank of each worker of this process that takes part."""


class Workers(Protocol):
    """The workers of this process, which share one model: one over processes, all of them in a simulation."""

    is_one: ClassVar[bool]  # whether there is never more than one

    @property
    def present(self) -> Sequence[int]:
        """Ranks of the workers of this process that take part in this step."""

    @property
    def applying(self) -> Sequence[int]:
        """Ranks of the workers whose results are applied: one that stands for all, if their models are equal."""

    def compute(self, rank: int) -> None:
        """Leave worker `rank`'s gradient in the parameters' `.grad`."""

    def gradient_at(self, rank: int) -> Callable[[Tensor], VectorSource] | None:
        """Return what evaluates the same mini-batch at other parameters (d,), if the method does that."""

    def start_of(self, rank: int, start: Tensor) -> Tensor:
        """Return worker `rank`'s parameters at the last exchange, (d,); `start` (d,) are the model's."""

    def load(self, rank: int, start: Tensor) -> None:
        """Give the model worker `rank`'s parameters, and the inner optimizer its state. For `start` see `start_of`."""

    def store(self, rank: int) -> None:
        """Keep the parameters that worker `rank` has after a step that no exchange follows."""

    def keep(self, rank: int) -> None:
        """Keep the parameters that worker `rank` has after an exchange of changes."""

    def end_step(self, start: Tensor | None, *, exchanged: bool) -> None:
        """End a local step.

        Args:
            start: the model's parameters at the last exchange, (d,), if they still hold for users.
            exchanged: whether an exchange of changes ends this step; if it was aborted, `start` is given.
        """

    def pull(self, models: Mapping[int, Result]) -> None:
        """Take the newest models, by worker, which an asynchronous server has sent."""


class TrainingStep:
    """The steps of the workers of this process."""

    def __init__(
        self,
        algorithm: Algorithm,
        inner: Optimizer,
        local_steps: int,
        flat: FlatParameters,
        active: ActiveParameters,
        driver: Driver,
        workers: Workers,
        *,
        learning_rates: LearningRates,
        clipping: Clipping | None,
    ) -> None:
        """Set up the steps.

        Args:
            algorithm: the method that exchanges gradients or changes.
            inner: the user's optimizer.
            local_steps: steps per exchange, as `check_local_steps` admits them.
            flat: the model's parameters.
            active: those that take part in a round.
            driver: runs the rounds.
            workers: the workers of this process.
            learning_rates: those of `inner`.
            clipping: what clips a gradient before the inner optimizer applies it.
        """
        self.learning_rates = learning_rates
        self.local = LocalSteps(algorithm, local_steps, flat, self.learning_rates, inner)
        self.active = active
        self.n_taken = 0
        """Number of steps since the last exchange, if steps are local."""
        self.start: Tensor | None = None
        """The parameters at the last exchange, (d,), if this process has taken steps since."""
        self.aborts: dict[int, Abort] = {}
        """By worker, whether a local step since the last exchange met inf or NaN."""
        self.weights: Mapping[int, float] = {}
        """By worker, what its vector is multiplied by; none for 1."""
        self.aborted_rounds = AbortedRounds(driver, flat)
        self._driver = driver
        self._algorithm = algorithm
        self._is_asynchronous = algorithm.is_asynchronous
        self._at_two_points = algorithm.second_gradient
        self._inner = inner
        self._flat = flat
        self._workers = workers
        self._clipping = clipping
        self._lr = 0.0  # of this round
        self._guard = StepGuard()
        self._largest_gradient = 0.0  # in a local step
        if (largest := flat.largest_value) < torch.finfo(torch.bfloat16).max:
            takes_answers = algorithm.returns == "direction" and not self.local.are_taken
            driver.check_results(self.local.fits, largest if takes_answers else math.inf)
        self._loss_scale: Tensor | None = None
        self._overflow = Abort.NO  # whether GradScaler has found inf or NaN
        self._buffer: Tensor | None = None  # for `start`, while that is None

    def step(self, loss_scale: Tensor | None = None, *, has_overflow: bool = False) -> None:
        """Take one step of each worker. Over processes it is collective.

        Args:
            loss_scale: what the loss was multiplied by, one number; None if by nothing.
            has_overflow: whether there was inf or NaN in the gradients of this step, which may be gone.
        """
        self._flat.check_listed()
        self._loss_scale = loss_scale
        self._overflow = Abort.NON_FINITE if has_overflow else Abort.NO
        if not self.local.are_taken and not self._is_asynchronous:
            self._step_with_gradient()
            return
        if self._is_asynchronous:
            self._step_by_arrival()
        elif not self.n_taken and self.local.is_known_in(self._driver.rounds):
            self._step_with_known_change()
        else:
            with self._undone_by_errors():
                self._step_locally()
        note_step(self._inner)  # it may not have stepped

    def exchange(self) -> None:
        """Run a round with the change of the local steps since the last one, if any. Over processes, collective."""
        if self.n_taken:
            with self._undone_by_errors():
                self._exchange_change(untaken=set())

    @contextmanager
    def _undone_by_errors(self) -> Iterator[None]:
        """Undo the local steps since the last exchange if any exception comes, as if the round were aborted."""
        try:
            yield
        except BaseException:
            start = self.start
            self.n_taken, self.start, self.aborts = 0, None, {}
            if start is not None:
                self._buffer = start
                self._workers.end_step(start, exchanged=True)
            raise

    def _step_by_arrival(self) -> None:
        def inputs_of(rank: int) -> Inputs:
            self._workers.compute(rank)
            return Inputs(
                vector=self._flat.gradient_source(self._loss_scale), parameters=self._flat.current,
                used=self._flat.has_gradient(), abort=self._overflow,
            )  # fmt: skip

        before = self._driver.aborted_rounds
        result = self._driver.round(inputs_of, self.learning_rates.now())
        if result.aborted or not result.results:
            self._workers.pull(result.results)
        else:
            apply_as_step(self._inner, partial(self._workers.pull, result.results))
        self.aborted_rounds.note(self._driver.aborted_rounds > before)

    def _step_with_gradient(self) -> None:
        alone = self._workers.is_one or not (self._algorithm.replicas_equal and self._workers.present[1:])
        parameters = self._flat.current if alone else self._flat.shared()

        def inputs_of(rank: int) -> Inputs:
            self._workers.compute(rank)
            return Inputs(
                vector=self._flat.gradient_source(self._loss_scale), parameters=parameters,
                gradient_at=self._workers.gradient_at(rank) if self._at_two_points else None,
                abort=self._overflow or self.active.abort,  # the larger one
            )  # fmt: skip

        result = self._round(inputs_of)
        if result.aborted or self._algorithm.returns == "parameters":
            note_step(self._inner)
        for rank in () if result.aborted else self._workers.applying:
            direction = result.results[rank]
            assert isinstance(direction, Tensor | InParts), "only methods that read changes may return a sparse result"
            if self._algorithm.returns == "parameters":
                assert isinstance(direction, Tensor), "parameters are copied, from one vector"
                apply_as_step(self._inner, partial(self._flat.set_values, direction))
            else:
                self._flat.set_gradients(direction, self.active.now)
                if self._clipping is not None:
                    self._clipping.clip(self._flat.parameters)
                support = result.supports.get(rank) if result.supports and self._clipping is None else None
                if not self.local.descend(support, self.active.now):
                    self.learning_rates.step(self._inner)

    def _step_with_known_change(self) -> None:
        """Run one round with the change of a step that is not taken."""
        clipped: dict[int, Abort] = {}  # by rank; a round may be repeated, and a gradient is changed once

        def inputs_of(rank: int) -> Inputs:
            self._workers.compute(rank)
            scale, abort = self._loss_scale, self._overflow or self.active.abort
            if self._clipping is not None or (scale is not None and not self._algorithm.replicas_equal):
                if rank not in clipped:
                    clipped[rank] = self._prepare_gradients()
                scale, abort = None, max(clipped[rank], abort)
            return Inputs(vector=self.local.change_of_step(scale), parameters=self._flat.current, abort=abort)

        result = self._round(inputs_of)
        for rank in self._applying(result):
            self.local.apply(None, result.of(rank), self.active.now)

    def _step_locally(self) -> None:
        if self.start is None and self._workers.applying:
            self.start = self._flat.values(out=self._buffer)
        if not self.n_taken:
            self.learning_rates.end_round()  # those of steps that an error has undone
        self.n_taken += 1
        self.learning_rates.note()
        if self.n_taken >= self.local.steps_in(self._driver.rounds):
            self._exchange_change(untaken=set(self._workers.present))
            return
        for rank in self._workers.present:
            self._take_step(rank)
            self._workers.store(rank)
        self._workers.end_step(self.start, exchanged=False)

    def _take_step(self, rank: int) -> None:
        assert self.start is not None
        self._workers.load(rank, self.start)
        self._workers.compute(rank)
        self.aborts[rank] = max(self.aborts.get(rank, Abort.NO), self._prepare_gradients())
        if not self.aborts[rank]:
            taken = self._guard.step(self._inner, self._flat, self._largest_gradient, self.learning_rates.step)
            self.aborts[rank] = Abort.unless(taken)

    def _prepare_gradients(self) -> Abort:
        """Unscale and clip the gradients of a local step. If they are not finite, do nothing, and return so."""
        self._largest_gradient = self._flat.largest_gradient()
        if self._overflow or not math.isfinite(self._largest_gradient):
            return Abort.NON_FINITE
        if self._loss_scale is not None:
            self._flat.divide_gradients(self._loss_scale)
        if self._clipping is not None:
            self._clipping.clip(self._flat.parameters)
        return Abort.NO

    def _exchange_change(self, untaken: set[int]) -> None:
        """Run one round with the changes of local steps.

        Args:
            untaken: ranks of the workers that still have to take the last step. They do when it is their turn, so that
                N workers' changes never exist together.
        """
        start = self.start

        def inputs_of(rank: int) -> Inputs:
            assert start is not None
            if rank in untaken:
                untaken.remove(rank)
                self._take_step(rank)
            else:
                self._workers.load(rank, start)
            own = self._workers.start_of(rank, start)
            return Inputs(
                vector=self.local.change_since(own), parameters=VectorCopy([start]) if own is start else own,
                abort=max(self.aborts.get(rank, Abort.NO), self.active.abort),
            )  # fmt: skip

        result = self._round(inputs_of)
        self.n_taken, self.start, self.aborts, self._buffer = 0, None, {}, start
        if start is not None:  # else this rank only serves
            applying = self._applying(result)
            for rank in applying:
                self.local.apply(self._workers.start_of(rank, start), result.of(rank), self.active.now)
                self._workers.keep(rank)
            self._workers.end_step(None if applying else start, exchanged=True)
        self.learning_rates.end_round()

    def _applying(self, result: RoundResult) -> Sequence[int]:
        """Return the ranks whose results of a round with changes are applied.

        There is none if the round was aborted, or if the learning rate is 0: then the memories wait as well, where all
        workers hold the same parameters. (Workers of a graph go on mixing.)
        """
        stays = self._algorithm.replicas_equal and not self._lr
        return () if result.aborted or stays else self._workers.applying

    def _round(self, inputs_of: Callable[[int], Inputs]) -> RoundResult:
        """Run one round; repeat it if the ranks have to agree on the parameters that take part."""
        if not self.active.is_agreed:
            self._agree()
        self._lr = self.learning_rates.now()
        if self.weights:
            inputs_of = weighted(inputs_of, self.weights, self._flat)
        while (result := self._driver.round(inputs_of, self._lr)).aborted is Abort.SET_DIFFERS:
            self._agree()
        self.active.end_round()
        if result.aborted or self.aborted_rounds.in_a_row:
            self.aborted_rounds.note(result.aborted is Abort.NON_FINITE)
        return result

    def _agree(self) -> None:
        self.active.agree(rests=bool(self._workers.applying) and not self._workers.present)

    def saved(self) -> dict[str, Any]:
        """Return the state between two steps, as tensors and data that JSON can hold."""
        differs = self.start is not None or not self._algorithm.replicas_equal  # the model, from rank to rank
        return {
            "active": self.active.saved(),
            "initial_lrs": list(self.learning_rates.initial),
            "lrs_since_exchange": list(self.learning_rates.since_exchange),
            "steps_taken": self.n_taken,
            "start": None if self.start is None else self.start.clone(),
            "values": self._flat.values() if differs else None,
            "non_finite": [rank for rank, abort in self.aborts.items() if abort],
        }

    def begun_again(self, state: Mapping[str, Any], values: Tensor | None) -> dict[str, Any]:
        """Return the state of a rank that begins at an exchange, with what all ranks had alike in a saved one.

        Args:
            state: what `saved` has returned, on any rank.
            values: the parameters (d,) that it begins with; None for those that the model has.
        """
        return {
            **state, "active": self.active.unsettled(), "steps_taken": 0, "start": None, "values": values,
            "non_finite": [], "lrs_since_exchange": [0.0] * len(self.learning_rates.initial),
        }  # fmt: skip

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if saved parameters are not those of this model, or its counts impossible."""
        check_mapping("the part 'training'", state)
        n_groups, steps = len(self.learning_rates.initial), state["steps_taken"]
        self.active.check(state["active"])
        lrs = [*state["initial_lrs"], *state["lrs_since_exchange"]]
        check_data("the learning rates", lrs, (int | float,) * (2 * n_groups))
        check_data("the steps since the last exchange", steps, range(self.local.many if self.local.are_taken else 1))
        check_data("the ranks with inf or NaN", state["non_finite"], [NUMBER])
        if not all(map(math.isfinite, lrs)) or (state["start"] is not None) > (steps > 0):
            raise ValueError("state_dict: the learning rates are not finite, or no step follows an exchange")
        if steps and state["start"] is None and self._workers.applying:
            raise ValueError("state_dict: the parameters at the last exchange are missing")
        for what, name in (("the parameters at the last exchange", "start"), ("the parameters", "values")):
            if state[name] is not None:
                check_vector(what, state[name], self._flat.values())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `saved` has returned."""
        self.active.restore(state["active"])
        self.learning_rates.initial = list(state["initial_lrs"])
        self.learning_rates.since_exchange = list(state["lrs_since_exchange"])
        self.n_taken = state["steps_taken"]
        self.start = None if state["start"] is None else state["start"].clone()
        if state["values"] is not None:
            self._flat.set_values(state["values"])
        self.aborts = dict.fromkeys(state["non_finite"], Abort.NON_FINITE)
