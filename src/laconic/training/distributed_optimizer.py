"""`DistributedOptimizer`: a user's optimizer that steps with the combined gradients of all ranks.

One call of `step()` is one round. The training loop does not change: zero_grad, backward, step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from laconic.contract import Algorithm
from laconic.drivers.distributed.arrivals import ProcessArrivals
from laconic.drivers.distributed.rounds import Processes
from laconic.protocol.round_inputs import Inputs
from laconic.protocol.round_result import RoundResult
from laconic.telemetry.meter import Meter
from laconic.telemetry.traffic import Traffic
from laconic.torch_compat import ScaledOptimizer, note_step
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.local_steps import LocalSteps
from laconic.training.replica_check import compare_replicas
from laconic.training.second_gradient import SecondGradient
from laconic.training.server_model import ServerModel
from laconic.training.state_dict import restore, saved


class DistributedOptimizer(ScaledOptimizer):
    """Wraps any `torch.optim` optimizer. Every rank of the process group must make one, and call `step` equally often.

    After `step()`, a parameter's `.grad` holds the direction that was applied. Its memory is reused when no parameter
    holds it, so clone it to keep it. If any rank meets inf or NaN, the round is aborted: it changes no parameter and no
    memory on any rank, and is counted in `traffic.aborted_rounds`. Weight decay of the inner optimizer is added after
    the exchange, so it is neither compressed nor voted on.
    """

    def __init__(
        self,
        inner: Optimizer,
        algorithm: Algorithm,
        *,
        model: torch.nn.Module | None = None,
        layout: str = "auto",
        local_steps: int = 1,
        seed: int = 0,
        check_every: int = 100,
        timeout_s: float = 300.0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Broadcast rank 0's parameters, frozen ones included, and the buffers of `model`. Collective.

        Args:
            inner: the optimizer to wrap.
            algorithm: the method that exchanges gradients.
            model: gives the parameters' names for saved state, and the buffers.
            layout: "auto", "allreduce", "rank0", "dedicated", "sharded" or "peers".
            local_steps: calls of `step()` per exchange.
            seed: seed of all random draws of the method.
            check_every: rounds between two comparisons of the replicas' hashes; 0 for never.
            timeout_s: how long to wait for another rank, seconds.
            group: the ranks that train together; None for all.

        Raises ValueError or TypeError for wrong arguments, before anything is sent.
        """
        if not isinstance(inner, Optimizer):
            raise TypeError(f"inner={inner!r:.80} must be a torch.optim.Optimizer")
        if not isinstance(algorithm, Algorithm):
            raise TypeError(f"algorithm={algorithm!r:.80} must be an algorithm such as laconic.CompSkip()")
        if isinstance(inner, LBFGS):
            raise ValueError(
                "inner=LBFGS evaluates its closure several times a step, and a round exchanges one gradient"
            )
        if check_every < 0 or timeout_s <= 0:
            raise ValueError(f"check_every={check_every} must be at least 0 and timeout_s={timeout_s} above 0")
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError(
                "no process group: call torch.distributed.init_process_group(...) first, or start the script with "
                "torchrun; to run many workers in one process use laconic.Simulation"
            )
        if algorithm.second_gradient and model is None:
            raise ValueError(
                f"model: {algorithm.name} evaluates each mini-batch at two points and restores the model's buffers; "
                "pass model=model"
            )
        if group is not None and dist.get_rank(group) < 0:
            raise ValueError(f"group: this process, global rank {dist.get_rank()}, is not one of its ranks")
        self.flat = FlatParameters(inner, model)
        super().__init__(inner.param_groups, inner.defaults)
        self.inner = inner
        self._share_groups(inner)
        inner.register_load_state_dict_post_hook(self._share_groups)  # loading replaces the lists of groups
        self.algorithm = algorithm
        self.check_every = check_every
        self.learning_rates = LearningRates(inner, algorithm)
        self._active: list[bool] = [False] * len(self.flat.parameters)
        self.local = LocalSteps(algorithm, local_steps, self.flat, self.learning_rates, inner)
        self._steps_taken = 0  # since the last exchange, if steps are local
        self._start: Tensor | None = None  # the parameters at the last exchange, if steps are local
        self._scratch_start: Tensor | None = None  # the buffer for `_start` while that is None
        self._used = [False] * len(self.flat.parameters)  # parameters with a gradient since the last exchange
        self._model = model
        self._non_finite = False  # a local step since the last exchange met inf or NaN
        parameters = self.flat.values()
        self.server_model = ServerModel(inner, lambda: self._active) if algorithm.server_steps else None
        options: dict[str, Any] = {
            "parameters": parameters, "spec": self.flat.spec, "group": group, "layout": layout, "seed": seed,
            "timeout_s": timeout_s, "descend": self.server_model.descend if self.server_model else None,
            "agreed": {
                "check_every": check_every, "local_steps": local_steps,
                "not trained": [list(t.shape) for t in fixed_tensors(inner, model)],
            },
        }  # fmt: skip
        self.driver: Processes
        if algorithm.mode == "arrivals":
            self.driver = ProcessArrivals(algorithm, use=self._mark_active, **options)
        else:
            self.driver = Processes(algorithm, **options)
        self.flat.set_values(parameters)
        for tensor in fixed_tensors(inner, model):
            self.driver.channel.share(tensor)
        if self.server_model is not None:
            self.server_model.flat.set_values(parameters)

    def _share_groups(self, inner: Optimizer) -> None:
        """Share the groups and the state with the inner optimizer, so that a scheduler may hold either."""
        self.param_groups = inner.param_groups
        self.state = inner.state

    @property
    def serves_only(self) -> bool:
        """Whether this rank is a dedicated server: it calls `step()` like the others, but trains no model."""
        return self.driver.worker is None

    @property
    def traffic(self) -> Traffic:
        """This rank's counters. A dedicated server counts nothing, because workers count both directions."""
        driver = self.driver
        meter = Meter() if driver.worker is None else driver.worker.meter
        control_bytes = driver.channel.control_bytes
        traffic = Traffic.of(meter, driver.rounds, driver.aborted_rounds, driver.seconds.sums(), control_bytes)
        if isinstance(driver, ProcessArrivals) and driver.arrivals is not None:
            total = driver.arrivals.total
            return replace(traffic, staleness=total.staleness, updates=total.updates)
        return traffic

    def total_traffic(self) -> Traffic:
        """Return the sum of all workers' counters, on every rank. Collective: every rank must call it."""
        counts_nothing = self.serves_only and self.algorithm.mode != "arrivals"
        mine = None if counts_nothing else self.traffic.as_data()
        gathered = self.driver.channel.gather(mine, f"for its traffic, round {self.driver.rounds}")
        offset, *others = [Traffic.from_data(peer) for peer in gathered if peer is not None]
        return sum(others, offset)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Take part in one round and apply its result. Returns the closure's loss, if there is a closure.

        Raises:
            RuntimeError: if no parameter has a gradient, or a closure is needed and missing.
            PeerLostError: if a rank is missing.
            ReplicaError: if a check finds that the replicas differ.
        """
        if self.algorithm.second_gradient and closure is None and not self.serves_only:
            raise RuntimeError(
                f"{self.algorithm.name} evaluates the mini-batch at two points, so step() needs a closure: "
                "def closure(): opt.zero_grad(); loss = loss_of(batch); loss.backward(); return loss"
            )
        loss = None
        second = None
        self._wait_for_admission(closure)
        if closure is not None:
            worker = self.driver.worker
            if self.algorithm.second_gradient and self._model is not None and worker is not None:
                second = SecondGradient(self.flat, closure, self._model, worker.me.memory.scratch)
            with torch.enable_grad():
                loss = closure()
        if isinstance(self.driver, ProcessArrivals):
            self._step_by_arrival(self.driver)
        elif self.local.are_taken:
            self._step_locally()
        else:
            self._step_with_gradient(second)
        note_step(self.inner)  # not every method steps it
        expected = self.check_every and self.driver.rounds % self.check_every == 0 and not self._steps_taken
        if expected and self.algorithm.replicas_equal:
            compare_replicas(self.driver.channel, None if self.serves_only else self.flat.values(), self.driver.rounds)
        return loss

    def _wait_for_admission(self, closure: Callable[[], Any] | None) -> None:
        """Wait for admission, if the staleness is bounded: before the gradient is computed, not after it."""
        if self.serves_only or not isinstance(self.driver, ProcessArrivals) or not self.driver.may_wait:
            return
        if closure is None:
            raise RuntimeError(
                f"{self.algorithm.name} with max_staleness may make this worker wait before it computes, so step() "
                "needs a closure: def closure(): opt.zero_grad(); loss = loss_of(batch); loss.backward(); return loss"
            )
        parameters = self.driver.request_admission()
        if parameters is not None:
            self.flat.set_values(parameters)

    def _step_by_arrival(self, driver: ProcessArrivals) -> None:
        """Send a worker's gradient and load the newest parameters; at the server, serve until all have stepped."""
        used = self._used_now()
        news = [has and not active for has, active in zip(used, self._active, strict=True)]
        if any(news):
            driver.report_used(news)
            self._mark_active([place for place, has in enumerate(news) if has])
        round_ = driver.round(lambda rank: self._bring_gradient(None), self.learning_rates.now())
        for result in round_.results.values():
            assert isinstance(result, Tensor)
            self.flat.set_values(result)

    def _mark_active(self, indices: Sequence[int]) -> None:
        for place in indices:
            self._active[place] = True

    def _exchange(self, used: list[bool], bring: Callable[[], Inputs]) -> RoundResult:
        """Run one round; repeat it if it was aborted because a parameter was used for the first time.

        Args:
            used: by parameter, whether it was used on this rank.
            bring: returns the round's inputs; called at each attempt, because a round overwrites their vector.
        """
        if not any(self._active):
            self._agree_on_active(used)

        def inputs_of(rank: int) -> Inputs:
            inputs = bring()
            news = any(has and not active for has, active in zip(used, self._active, strict=True))
            inputs.abort = inputs.abort or news
            return inputs

        while True:
            round_ = self.driver.round(inputs_of, self.learning_rates.now())
            if not round_.aborted or not self._agree_on_active(used):
                return round_
            self.driver.forget_aborted_round()

    def _step_with_gradient(self, second: SecondGradient | None) -> None:
        round_ = self._exchange(self._used_now(), lambda: self._bring_gradient(second))
        worker = self.driver.worker
        if round_.aborted or worker is None:
            return
        result = round_.of(worker.rank)
        assert isinstance(result, Tensor), "only methods that consume changes may return a sparse one"
        if self.algorithm.returns == "parameters":
            self.flat.set_values(result)
        else:
            self.flat.set_gradients(result, self._active)
            worker.me.memory.reclaim(self.flat.has_gradients_in)  # the last one, if it was still used
            self.inner.step()

    def _used_now(self) -> list[bool]:
        """Return, by parameter, whether it has a gradient on this rank."""
        if self.serves_only:
            return [False] * len(self._active)
        has_gradient = self.flat.has_gradient()
        if not any(has_gradient):
            raise RuntimeError("step() without gradients: no parameter has one; call loss.backward() before opt.step()")
        return has_gradient

    def _bring_gradient(self, second: SecondGradient | None) -> Inputs:
        """Return the round's inputs."""
        worker = self.driver.worker
        assert worker is not None
        memory = worker.me.memory
        memory.reclaim(self.flat.has_gradients_in)  # zero_grad(set_to_none=False) keeps the last direction in use
        stays = self.algorithm.takes_gradient_tensors and self._loss_scale is None
        vector = torch.empty(0) if stays else memory.scratch()
        inputs = Inputs(vector=vector, parameters=lambda: self.flat.values(out=memory.scratch()), gradient_at=second)
        if stays:
            inputs.gradient_tensors = self.flat.gradient_tensors()
        elif self._loss_scale is None:
            inputs.fill = self.flat.fill_by_gradients(vector)
        else:
            torch.div(self.flat.gradients(out=vector), self._loss_scale, out=vector)
        return inputs

    def _agree_on_active(self, has_gradient: list[bool]) -> bool:
        """Gather the parameters that have ever had a gradient on any rank. Returns whether there are new ones."""
        indices = [place for place, has in enumerate(has_gradient) if has]
        gathered = self.driver.channel.gather(indices, f"for its list of used parameters, round {self.driver.rounds}")
        news = {place for of_rank in gathered for place in of_rank if not self._active[place]}
        for place in news:
            self._active[place] = True
        return bool(news)

    def _step_locally(self) -> None:
        """Step the inner optimizer; after `local_steps` steps, run one round with their change."""
        if not self._steps_taken and self.local.is_known_in(self.driver.rounds):
            self._apply(None, self._exchange(self._used_now(), self._bring_change_of_step))
            return
        if not self.serves_only:
            self._take_local_step()
        self._steps_taken += 1
        if self._steps_taken >= self.local.steps_in(self.driver.rounds):
            self.exchange_steps()

    @torch.no_grad()
    def exchange_steps(self) -> None:
        """Exchange the change of local steps since the last round, if any. Call it at a run's end. Collective."""
        if not self._steps_taken:
            return
        start = self._start
        round_ = self._exchange(self._used, lambda: self._bring_change(start))
        self._steps_taken, self._start, self._non_finite = 0, None, False
        self._scratch_start = start
        self._used = [False] * len(self._used)
        if start is not None:
            self._apply(start, round_)

    def _apply(self, start: Tensor | None, round_: RoundResult) -> None:
        """Set the parameters by a round's result; `start` (d,) are those before the local steps, if any."""
        for result in round_.results.values():
            self.local.apply(start, result, self._active)
        if start is not None and not round_.results:
            self.flat.set_values(start)

    def _take_local_step(self) -> None:
        has_gradient = self.flat.has_gradient()
        if not any(has_gradient):
            raise RuntimeError("step() without gradients: no parameter has one; call loss.backward() before opt.step()")
        if self._start is None:
            self._start = self.flat.values(out=self._scratch_start)
        self._used = [used or has for used, has in zip(self._used, has_gradient, strict=True)]
        self._non_finite = self._non_finite or not self.flat.gradients_are_finite()
        if not self._non_finite:
            if self._loss_scale is not None:
                self.flat.divide_gradients(self._loss_scale)
            self.inner.step()

    def _bring_change(self, start: Tensor | None) -> Inputs:
        """Return the round's inputs with the change since `start` (d,)."""
        worker = self.driver.worker
        assert start is not None
        assert worker is not None
        memory = worker.me.memory
        memory.reclaim()  # the last result has been applied
        change = memory.scratch()
        inputs = Inputs(vector=change, parameters=start.clone, abort=self._non_finite)
        if self.algorithm.consumes == "change":
            inputs.write_change = partial(self.flat.change_since, start, change)
        else:
            self.flat.change_since(start, change)
            inputs.vector = self.local.vector(change)
        return inputs

    def _bring_change_of_step(self) -> Inputs:
        """Return the round's inputs with the change of one step that is not taken."""
        worker = self.driver.worker
        assert worker is not None
        memory = worker.me.memory
        memory.reclaim()  # the last result has been applied
        change = memory.scratch()
        scale = 1.0 if self._loss_scale is None else float(self._loss_scale)
        learning_rates = [learning_rate / scale for learning_rate in self.learning_rates.by_group()]
        return Inputs(
            vector=change, parameters=lambda: self.flat.values(out=memory.scratch()),
            write_change=partial(self.flat.change_of_step, learning_rates, change),
        )  # fmt: skip

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as the inner optimizer does."""
        self.inner.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raise RuntimeError: parameters cannot be added after construction."""
        if hasattr(self, "driver"):
            raise RuntimeError(
                "add_param_group: the ranks have agreed on the parameters; make a new DistributedOptimizer"
            )
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state and, under "laconic", the method's state of this rank."""
        return self.inner.state_dict() | {"laconic": saved(self)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, bit for bit. The parameters are part of the model's own state.

        Raises ValueError, before anything changes, for another algorithm, rank, number of workers, layout or model.
        """
        restore(self, state_dict)


def fixed_tensors(inner: Optimizer, model: torch.nn.Module | None) -> list[Tensor]:
    """Return the tensors that no step changes, but all ranks must share: frozen parameters and the model's buffers."""
    known = [parameter for group in inner.param_groups for parameter in group["params"]]
    if model is not None:
        listed = {id(parameter) for parameter in known}
        known += [parameter for parameter in model.parameters() if id(parameter) not in listed]
        known += list(model.buffers())
    return [tensor for tensor in known if not tensor.requires_grad]
