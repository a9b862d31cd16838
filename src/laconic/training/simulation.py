"""`Simulation`: a user's model and optimizer, trained by many simulated workers in one process."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.drivers.simulated.arrivals import SimulatedArrivals
from laconic.drivers.simulated.rounds import Simulated
from laconic.faults.plan import FaultPlan
from laconic.network import ComputeTime, Link
from laconic.protocol.round_inputs import Inputs
from laconic.telemetry.traffic import Traffic
from laconic.torch_compat import note_step
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.local_steps import LocalSteps
from laconic.training.second_gradient import Surroundings
from laconic.training.server_model import ServerModel


class Simulation:
    """All workers share one model; each has its own memories, buffers (batch norm) and state of the optimizer.

    ```python
    simulation = laconic.Simulation(model, torch.optim.SGD(model.parameters(), lr=0.1), laconic.SGD(), workers=8)
    losses = simulation.step(lambda rank: cross_entropy(model(inputs[rank]), labels[rank]))
    ```
    Bit-equal to `DistributedOptimizer` over as many processes (CPU, one thread each, the same random state in a step).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        inner: Optimizer,
        algorithm: Algorithm,
        *,
        workers: int,
        layout: str = "auto",
        local_steps: int = 1,
        seed: int = 0,
        link: Link | None = None,
        links: Mapping[int, Link] | None = None,
        compute_s: float | Mapping[int, float] | ComputeTime = 0.0,
        faults: FaultPlan | None = None,
    ) -> None:
        """Set up the simulated workers.

        Args:
            model: the model to train.
            inner: its optimizer.
            algorithm: the method that exchanges gradients.
            workers: number of workers.
            layout: "auto", "allreduce", "rank0", "dedicated", "sharded" or "peers".
            local_steps: steps per exchange.
            seed: seed of all random draws of the method, the network and the faults.
            link: the link of every node; by default it is unlimited.
            links: exceptions, by node.
            compute_s: virtual time of one gradient, seconds: of all workers, by worker, or as a distribution.
            faults: the faults to simulate.

        Raises:
            ValueError: for wrong arguments.
        """
        self.model = model
        self.inner = inner
        self.algorithm = algorithm
        self.flat = FlatParameters(inner, model)
        self.learning_rates = LearningRates(inner, algorithm)
        self.local = LocalSteps(algorithm, local_steps, self.flat, self.learning_rates, inner)
        self._active = [False] * len(self.flat.parameters)
        self.server_model = ServerModel(inner, lambda: self._active) if algorithm.server_steps else None
        options: dict[str, Any] = {
            "spec": self.flat.spec, "n_workers": workers, "dtype": self.flat.dtype,
            "layout": layout, "seed": seed, "link": link, "links": links, "compute_s": compute_s, "faults": faults,
            "descend": self.server_model.descend if self.server_model else None,
        }  # fmt: skip
        self.driver: Simulated
        if algorithm.mode == "arrivals":
            self.driver = SimulatedArrivals(algorithm, parameters=self.flat.values(), **options)
        else:
            self.driver = Simulated(algorithm, sparse_results=True, **options)
        self._shown_buffers = list(model.buffers())  # the model's own; walking the modules takes time
        self._buffers = [[buffer.clone() for buffer in self._shown_buffers] for _ in range(workers)]
        self._states: list[Any] = [_copied(inner.state) for _ in range(workers)]  # of local optimizers
        self._replicas = [self.flat.values() for _ in range(workers)] if not algorithm.replicas_equal else []
        self._steps_taken = 0
        self._shown: Tensor | None = None  # for the parameters between two exchanges, if steps are local
        self._local: dict[int, Tensor] = {}  # by worker, the same
        self._non_finite = [False] * workers
        self._losses = [math.nan] * workers  # the latest of each, for asynchronous methods

    @property
    def n_workers(self) -> int:
        return len(self.driver.workers)

    @property
    def down(self) -> frozenset[int]:
        """Ranks of the workers that a fault plan makes miss the next step."""
        return self.driver.injector.down_in(self.driver.rounds)

    def traffic_of(self, rank: int) -> Traffic:
        """Return one worker's counters. Seconds are virtual: the clock at the end of the last round."""
        driver = self.driver
        seconds = {"virtual": driver.clock.now_ns / 1e9}
        faults = driver.injector.counts[rank]
        traffic = Traffic.of(driver.workers[rank].meter, driver.rounds, driver.aborted_rounds, seconds, faults=faults)
        if isinstance(driver, SimulatedArrivals):
            counts = driver.arrivals.update_counts[rank]
            return replace(traffic, staleness=dict(counts.staleness), updates=counts.updates)
        return traffic

    @property
    def traffic(self) -> Traffic:
        """The sum of all workers' counters."""
        total = self.traffic_of(0)
        for rank in range(1, self.n_workers):
            total = total + self.traffic_of(rank)
        return total

    def step(self, loss_of: Callable[[int], Tensor]) -> list[float]:
        """Take one step of every worker.

        After the step, the model's floating-point buffers are the workers' mean, and so are its parameters if the
        method lets the workers' models differ.

        With an asynchronous method, a step ends when the server has finished one more gradient of every worker. A fast
        worker may then be ahead: `loss_of(rank)` is called for it several times in one step, and not at all in a later
        one, which returns its latest loss. After the step, the model is the server's.

        Args:
            loss_of: `loss_of(rank)` returns worker `rank`'s loss on its mini-batch, at the current model.

        Returns:
            The workers' losses, in rank order; NaN for a worker that is down.
        """
        losses = [math.nan] * self.n_workers
        if isinstance(self.driver, SimulatedArrivals):
            losses = self._step_by_arrivals(self.driver, loss_of)
        elif self.local.are_taken:
            self._step_locally(loss_of, losses)
        else:
            self._step_with_gradient(loss_of, losses)
        self._average_buffers()
        return losses

    def _backward(self, rank: int, loss_of: Callable[[int], Tensor]) -> float:
        """Run the forward and backward passes of one worker, with its own buffers."""
        self._load_buffers(rank)
        self.flat.drop_gradients()
        with torch.enable_grad():
            loss = loss_of(rank)
            loss.backward()  # type: ignore[no-untyped-call]
        self._buffers[rank] = [buffer.clone() for buffer in self._shown_buffers]
        return float(loss.detach())

    def _load_buffers(self, rank: int) -> None:
        for buffer, own in zip(self._shown_buffers, self._buffers[rank], strict=True):
            buffer.copy_(own)

    @torch.no_grad()
    def _step_with_gradient(self, loss_of: Callable[[int], Tensor], losses: list[float]) -> None:
        lr = self.learning_rates.now()

        def inputs_of(rank: int) -> Inputs:
            before = self._surroundings(rank) if self.algorithm.second_gradient else None
            losses[rank] = self._backward(rank, loss_of)
            self._active = [active or has for active, has in zip(self._active, self.flat.has_gradient(), strict=True)]
            memory = self.driver.workers[rank].me.memory
            self.driver.reclaim(self.flat.has_gradients_in)
            memory.reclaim(self.flat.has_gradients_in)
            stays = self.algorithm.takes_gradient_tensors
            vector = torch.empty(0) if stays else memory.scratch()
            inputs = Inputs(vector=vector, parameters=lambda: self.flat.values(out=memory.scratch()))
            if stays:
                inputs.gradient_tensors = self.flat.gradient_tensors()
            else:
                inputs.fill = self.flat.fill_by_gradients(vector)
            if before is not None:
                inputs.gradient_at = lambda parameters: self._gradient_at(rank, loss_of, parameters, before)
            return inputs

        outcome = self.driver.round(inputs_of, lr)
        if outcome.aborted:
            return
        result = outcome.of(0)
        assert isinstance(result, Tensor), "only methods that consume changes may return a sparse one"
        if self.algorithm.returns == "parameters":
            self.flat.set_values(result)
        else:
            self.flat.set_gradients(result, self._active)
            self.inner.step()

    @torch.no_grad()
    def _step_by_arrivals(self, driver: SimulatedArrivals, loss_of: Callable[[int], Tensor]) -> list[float]:
        assert self.server_model is not None, "an asynchronous method has its model at the server"
        lr = self.learning_rates.now()

        def inputs_of(rank: int) -> Inputs:
            self.flat.set_values(driver.pulled[rank])
            self._losses[rank] = self._backward(rank, loss_of)
            self._active = [active or has for active, has in zip(self._active, self.flat.has_gradient(), strict=True)]
            return Inputs(vector=self.flat.gradients(), parameters=lambda: driver.pulled[rank])

        driver.round(inputs_of, lr)
        self._replicas = list(driver.pulled)
        self.flat.set_values(self.server_model.flat.values())
        return list(self._losses)

    def _surroundings(self, rank: int) -> Surroundings:
        """Copy the current random streams, and worker `rank`'s buffers."""
        self._load_buffers(rank)
        return Surroundings.of(self._shown_buffers)

    def _gradient_at(
        self, rank: int, loss_of: Callable[[int], Tensor], parameters: Tensor, before: Surroundings
    ) -> Tensor:
        """Return the gradient (d,) of the same mini-batch at `parameters` (d,), with the same random numbers."""
        memory = self.driver.workers[rank].me.memory
        here, after = self.flat.values(out=memory.scratch()), self._surroundings(rank)
        self._buffers[rank] = before.buffers
        before.put_back(self._shown_buffers)
        self.flat.set_values(parameters)
        self._backward(rank, loss_of)
        self.flat.set_values(here)
        after.put_back(self._shown_buffers)
        self._buffers[rank] = after.buffers
        return self.flat.gradients(out=memory.scratch())

    @torch.no_grad()
    def _step_locally(self, loss_of: Callable[[int], Tensor], losses: list[float]) -> None:
        if not self._steps_taken and self.local.is_known_in(self.driver.rounds):
            self._exchange_gradients(loss_of, losses)
            return
        shown = self._shown = self.flat.values(out=self._shown)
        if self._steps_taken + 1 >= self.local.steps_in(self.driver.rounds):
            self._exchange(shown, lambda rank: self._step_of(rank, shown, loss_of, losses))
            return
        down = self.down
        for rank in range(self.n_workers):
            if rank in down:
                continue
            self._step_of(rank, shown, loss_of, losses)
            if rank not in self._local:
                self._local[rank] = self._scratch_for(rank)
            self.flat.values(out=self._local[rank])
        self.flat.set_values(shown)
        self._steps_taken += 1

    def _exchange_gradients(self, loss_of: Callable[[int], Tensor], losses: list[float]) -> None:
        """Run one round with the changes of steps that are not taken."""
        learning_rates = self.learning_rates.by_group()

        def inputs_of(rank: int) -> Inputs:
            losses[rank] = self._backward(rank, loss_of)
            self._active = [active or has for active, has in zip(self._active, self.flat.has_gradient(), strict=True)]
            vector, memory = self._scratch_for(rank), self.driver.workers[rank].me.memory
            return Inputs(
                vector=vector, parameters=lambda: self.flat.values(out=memory.scratch()),
                write_change=partial(self.flat.change_of_step, learning_rates, vector),
            )  # fmt: skip

        outcome = self.driver.round(inputs_of, self.learning_rates.now())
        note_step(self.inner)  # it does not step
        if not outcome.aborted:
            self.local.apply(None, outcome.of(0), self._active)

    def _step_of(self, rank: int, shown: Tensor, loss_of: Callable[[int], Tensor], losses: list[float]) -> None:
        """Take one worker's local step. Afterwards the model has this worker's parameters."""
        start = self._replicas[rank] if self._replicas else shown
        self.flat.set_values(self._local.get(rank, start))
        losses[rank] = self._backward(rank, loss_of)
        self._active = [active or has for active, has in zip(self._active, self.flat.has_gradient(), strict=True)]
        self.inner.state = self._states[rank]
        self._non_finite[rank] = self._non_finite[rank] or not self.flat.gradients_are_finite()
        if not self._non_finite[rank]:
            self.inner.step()

    def _scratch_for(self, rank: int) -> Tensor:
        """Return a scratch vector (d,) for worker `rank`, valid until the end of the round."""
        memory = self.driver.workers[rank].me.memory
        for results in (self.driver, memory):
            results.reclaim()  # they were applied
        return memory.scratch()

    @torch.no_grad()
    def exchange_steps(self) -> None:
        """Exchange the change of local steps since the last round, if any. Call it at a run's end."""
        if self._steps_taken:
            self._shown = self.flat.values(out=self._shown)
            self._exchange(self._shown, lambda rank: self.flat.set_values(self._local[rank]))

    def _exchange(self, shown: Tensor, load: Callable[[int], None]) -> None:
        """Run one round with the change of local steps.

        Args:
            shown: the model's parameters before the steps, (d,); overwritten.
            load: `load(rank)` loads that worker's parameters into the model.
        """
        starts = self._replicas or [shown] * self.n_workers

        def inputs_of(rank: int) -> Inputs:
            load(rank)
            vector = self._local.pop(rank, None)
            if vector is None:
                vector = self._scratch_for(rank)
            scratch = self.driver.workers[rank].me.memory.scratch
            parameters = (lambda: starts[rank]) if self._replicas else (lambda: scratch().copy_(starts[rank]))
            inputs = Inputs(vector=vector, parameters=parameters, abort=self._non_finite[rank])
            if self.algorithm.consumes == "change":
                inputs.write_change = partial(self.flat.change_since, starts[rank], vector)
            else:
                self.flat.change_since(starts[rank], vector)
                inputs.vector = self.local.vector(vector)
            return inputs

        outcome = self.driver.round(inputs_of, self.learning_rates.now())
        self._steps_taken, self._local, self._non_finite = 0, {}, [False] * self.n_workers
        if outcome.aborted:
            self.flat.set_values(shown)
            return
        for rank in range(len(self._replicas) or 1):
            self.local.apply(starts[rank], outcome.of(rank), self._active)
            if self._replicas:
                self._replicas[rank] = self.flat.values()
        if self._replicas:
            self.flat.set_values(torch.stack(self._replicas).mean(0))

    def parameters_of(self, rank: int) -> Tensor:
        """Return a copy of worker `rank`'s parameters after the last exchange, (d,)."""
        return self._replicas[rank].clone() if self._replicas else self.flat.values()

    def _average_buffers(self) -> None:
        """Load the mean of the workers' floating-point buffers into the model, and worker 0's others."""
        for place, buffer in enumerate(self._shown_buffers):
            own = [buffers[place] for buffers in self._buffers]
            buffer.copy_(torch.stack(own).mean(0) if buffer.is_floating_point() else own[0])


def _copied(state: Mapping[Tensor, dict[str, Any]]) -> defaultdict[Tensor, dict[str, Any]]:
    """Return a copy of an optimizer's state for one worker; its keys remain the model's parameters."""
    return defaultdict(dict, {parameter: deepcopy(values) for parameter, values in state.items()})
