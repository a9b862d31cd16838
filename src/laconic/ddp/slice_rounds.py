"""One round over the slices of a model, carried out by a thread: gradients in, directions out.

A slice whose gradients are all there begins its part of the round; a thread carries the parts out one after the other,
and ends the round when all have run. Then the directions are written over the gradients, or NaN if it is aborted.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from laconic.contract import InParts
from laconic.ddp.step_watch import StepWatch
from laconic.drivers.distributed.sliced_rounds import SlicedProcesses
from laconic.drivers.transport import Transport
from laconic.kernels.api import scatter
from laconic.protocol.abort import Abort
from laconic.protocol.round_inputs import Inputs
from laconic.protocol.round_result import RoundResult
from laconic.training.active_parameters import ActiveParameters
from laconic.training.clipping import Clipping
from laconic.training.flat_parameters import FlatParameters
from laconic.training.vector_sources import Unscaled, VectorCopy


@dataclass(kw_only=True)
class Backward:
    """The gradients of one backward pass."""

    gradients: dict[int, Tensor] = field(default_factory=dict)
    """By the parameter's index, as far as they are there."""
    waiting: list[int] = field(default_factory=list)
    """Slices whose gradients are there, and that have not begun, in order."""
    begun: list[int] = field(default_factory=list)
    """Those that have begun, in order."""
    ready: list[torch.cuda.Event] = field(default_factory=list)
    """On a GPU, when gradients are there."""
    lr: float = 1.0
    loss_scale: Tensor | None = None
    """What the loss was multiplied by."""


class SliceRounds:
    """The rounds of a method over the slices of a model."""

    def __init__(
        self,
        driver: SlicedProcesses,
        flat: FlatParameters,
        active: ActiveParameters,
        slices: Sequence[range],
        *,
        watch: StepWatch,
        begin: Callable[[], float],
        after: Callable[[], None],
        loss_scale: Callable[[], Tensor | None],
        clipping: Clipping | None,
    ) -> None:
        """Set up the rounds.

        Args:
            driver: runs them.
            flat: the model's parameters.
            active: those that take part in a round.
            slices: the parameters of each slice.
            watch: is told of each round.
            begin: called when a round begins; returns the learning rate of the step that follows.
            after: called when a round has ended and nothing is being sent, at the end of the backward pass.
            loss_scale: returns what the loss is multiplied by, one number; None if by nothing.
            clipping: what clips the directions.
        """
        self.aborted = False
        """Whether the last round was aborted, so that the gradients are NaN on all ranks."""
        self._driver, self._flat, self._active, self._slices = driver, flat, active, slices
        self._watch, self._on_begin, self._loss_scale, self._clipping = watch, begin, loss_scale, clipping
        self._after = after
        self._place_of = {id(parameter): place for place, parameter in enumerate(flat.parameters)}
        self._slice_of = [number for number, run in enumerate(slices) for _ in run]
        self._missing: list[int] = []  # by slice, how many gradients are not there yet
        self._error: BaseException | None = None

    def _begin(self) -> Backward:
        """Begin a round. Raises RuntimeError if the directions of the one before were not applied."""
        if self._error is not None:
            raise self._error
        self._watch.begin()
        self._missing = [len(run) for run in self._slices]
        return Backward(lr=self._on_begin(), loss_scale=self._loss_scale())

    def _note(self, now: Backward, found: Iterable[tuple[int, Tensor]]) -> None:
        """Take note of gradients that are there, each with its parameter's index."""
        complete = []
        for place, gradient in found:
            now.gradients[place] = gradient
            number = self._slice_of[place]
            self._missing[number] -= 1
            if not self._missing[number]:
                complete.append(number)
        now.waiting += sorted(complete, reverse=True)

    def _begin_waiting(self, now: Backward, abort_last: Abort = Abort.NO) -> None:
        """Begin the parts of the slices that wait; the last of them may abort the round."""
        for number in now.waiting:
            abort = abort_last if number == now.waiting[-1] else Abort.NO
            self._driver.scheduler.run(partial(self._run_guarded, now, number, abort), number)
        now.begun += now.waiting
        now.waiting = []

    def _in_thread(self, function: Callable[[], object]) -> None:
        """Call a function in the thread that sends, unless an error has ended the job."""
        self._driver.scheduler.call(partial(self._guarded, function))

    def _run_guarded(self, now: Backward, number: int, abort: Abort, lane: Transport) -> None:
        self._guarded(partial(self._run, now, number, abort, lane))

    def _guarded(self, function: Callable[[], object]) -> None:
        if self._error is None:
            try:
                with torch.no_grad(), self._on_device():
                    function()
            except BaseException as error:
                self._error = self._error or error  # that of another lane came before

    def _on_device(self) -> contextlib.AbstractContextManager[object]:
        device = self._flat.device
        return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()

    def _run(self, now: Backward, number: int, abort: Abort = Abort.NO, lane: Transport | None = None) -> None:
        for event in now.ready:
            torch.cuda.current_stream().wait_event(event)
        run = self._slices[number]
        gradients = [now.gradients[place] for place in run]
        inputs = Inputs(
            vector=VectorCopy(gradients) if now.loss_scale is None else Unscaled(gradients, now.loss_scale),
            parameters=VectorCopy([self._flat.parameters[place] for place in run]), abort=abort,
        )  # fmt: skip
        self._driver.run_slice(number, inputs, now.lr, lane)

    def _end(self, now: Backward, hand_over: Callable[[], None]) -> Future[None]:
        """Begin what waits, and let the round end; then `hand_over` is called. Returns what `_wait_for` waits for."""
        self._active.note(self._flat.has_gradient())
        if not self._active.is_agreed:
            self._in_thread(self._active.agree)
        self._begin_waiting(now, self._active.abort)
        self._in_thread(partial(self._finish, now))
        return self._driver.scheduler.call(hand_over)

    def _finish(self, now: Backward) -> None:
        results = self._driver.end_round()
        while results[0].aborted is Abort.SET_DIFFERS:
            self._active.agree()
            for number in now.begun:
                self._run(now, number)
            results = self._driver.end_round()
        self._active.end_round()
        self.aborted = bool(results[0].aborted)
        if self.aborted:
            for met in now.gradients.values():
                met.fill_(torch.nan)
        else:
            self._write(now, results)
            active = enumerate(self._active.now)
            written = [now.gradients[place] if moves else None for place, moves in active]
            if self._clipping is not None:
                self._clipping.clip_in_place(written)
            for gradient in written:
                if gradient is not None and now.loss_scale is not None:
                    gradient.mul_(now.loss_scale)
            self._watch.end()
        now.gradients.clear()

    def _write(self, now: Backward, results: Sequence[RoundResult]) -> None:
        """Write the directions over the gradients of the parameters that take part."""
        worker_rank = self._driver.own_worker_rank
        assert worker_rank is not None, "every rank works"
        for run, result in zip(self._slices, results, strict=True):
            direction = result.of(worker_rank)
            if isinstance(direction, InParts):
                if self._active.all_active:
                    direction.put_across([now.gradients[place] for place in run])
                    continue
                direction = direction.dense()
            assert isinstance(direction, Tensor), "only methods that read changes may return a sparse result"
            if self._active.all_active:
                scatter(direction, [now.gradients[place] for place in run])
                continue
            stops = list(accumulate(self._flat.sizes[place] for place in run))
            for place, start, stop in zip(run, [0, *stops], stops, strict=False):
                if self._active.now[place]:
                    scatter(direction[start:stop], [now.gradients[place]])

    def _wait_for(self, ended: Future[None]) -> None:
        ended.result()
        if self._error is not None:
            raise self._error
        self._after()
