"""`DistributedOptimizer`: a user's optimizer that steps with the combined gradients of all ranks.

One call of `step()` is one round. The training loop does not change: zero_grad, backward, step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm, Result
from laconic.drivers.distributed.arrivals import ProcessArrivals
from laconic.drivers.distributed.meeting import shows_refusals
from laconic.drivers.distributed.rounds import TOPIC, Processes
from laconic.statements import state_once
from laconic.telemetry.meter import Meter
from laconic.telemetry.traffic import Traffic
from laconic.torch_compat import LOSS_SCALE, OVERFLOW, opaque, report_overflow
from laconic.training.active_parameters import ActiveParameters
from laconic.training.agreed_settings import agreed_settings, check_order
from laconic.training.claims import Claim
from laconic.training.clipping import clipping_of
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import Choice, LearningRates
from laconic.training.optimizer_arguments import check_arguments, fixed_tensors
from laconic.training.replica_check import ReplicaCheck
from laconic.training.second_gradient import SecondGradient, called_twice
from laconic.training.server_model import ServerModel
from laconic.training.state_dict import Part, compose, identity_of, load
from laconic.training.training_step import TrainingStep
from laconic.training.wrapping import OptimizerAround


class DistributedOptimizer(OptimizerAround):
    """Wraps any `torch.optim` optimizer. Every rank of the process group must make one, and call `step` equally often.

    After `step()`, a parameter's `.grad` holds the direction that was applied. Its memory is reused when no parameter
    holds it, so clone it to keep it. If any rank meets inf or NaN, the round is aborted: it changes no parameter and no
    memory on any rank, and is counted in `traffic.aborted_rounds`. Weight decay of the inner optimizer is added after
    the exchange, so it is neither compressed nor voted on.
    """

    @shows_refusals(TOPIC)
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
        replicas: str = "sync",
        timeout_s: float | None = None,
        group: dist.ProcessGroup | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        lr: Choice | None = None,
        sparse_gradients: str = "refuse",
    ) -> None:
        """Broadcast rank 0's parameters, frozen ones included, and the buffers of `model`. Collective.

        Args:
            inner: the optimizer to wrap.
            algorithm: the method that exchanges gradients.
            model: gives the parameters' names for saved state, and the buffers.
            layout: "auto", "allreduce", "rank0", "dedicated", "sharded", "allgather" or "peers".
            local_steps: calls of `step()` per exchange.
            seed: seed of all random draws of the method.
            check_every: rounds between two comparisons of the replicas, and of the optimizers' options; 0 for never.
            replicas: what happens to replicas that differ by rounding, as on unlike processors: "sync" gives all ranks
                rank 0's again, "stop" raises ReplicaError. Larger differences always raise.
            timeout_s: how long another rank is waited for, seconds; None for as long as the process group waits.
            group: the ranks that train together; None for all.
            clip_norm: the largest norm of the gradient that `inner` applies, as in `clip_grad_norm_`: of the
                exchanged direction, or where steps are local (`local_steps` above 1, or a method that sends changes)
                of each local step's own gradient. None for no bound.
            clip_value: the largest magnitude of its elements, as in `clip_grad_value_`. None for no bound.
            lr: "scaled" multiplies the learning rates of `inner`, whenever they are used, by the method's `lr_factor`;
                the parameter groups and schedules keep the user's own. "kept" leaves them. None leaves them too, and
                rank 0 states the factor if it is not 1.
            sparse_gradients: "refuse" them, or make them "dense", as layers with sparse=False would have them.

        Raises:
            ValueError: for wrong arguments, before anything is sent; TypeError for wrong types. The other ranks learn
                it at once.
            SetupError: if ranks differ in what they must have in common, or another one refused its own arguments.
            PeerLostError: if a rank is missing.
        """
        check_arguments(inner, algorithm, model, local_steps, check_every, replicas, timeout_s, group, sparse_gradients)
        super().__init__(inner)
        self.flat = FlatParameters(inner, model, sparse_gradients=sparse_gradients)
        learning_rates = LearningRates(inner, algorithm, lr)
        clipping = clipping_of(clip_norm, clip_value, algorithm, self.flat, model)
        self._claim = Claim(self.flat, group)
        self._claim.check()
        self.algorithm = algorithm
        self._model = model
        active = ActiveParameters(self.flat.sizes, self._gather_used)
        self.server_model = ServerModel(inner, active, learning_rates, clipping) if algorithm.server_steps else None
        parameters = self.flat.values()
        fixed = fixed_tensors(inner, model)
        kind = ProcessArrivals if algorithm.is_asynchronous else Processes
        self.driver: Processes = kind(
            algorithm, parameters=parameters, spec=self.flat.spec, group=group, layout=layout, seed=seed,
            timeout_s=timeout_s, descend=self.server_model.descend if self.server_model else None, active=active,
            agreed={
                "local_steps": local_steps, "check_every": check_every, "replicas": replicas,
                "clip_norm": clip_norm, "clip_value": clip_value,
                "lr_factor": learning_rates.factor, **agreed_settings(inner, self.flat, fixed),
            },
        )  # fmt: skip
        if not self.flat.is_named:
            check_order(self.flat, self.driver.channel)
        self.flat.set_values(parameters)
        for tensor in fixed:
            self.driver.channel.share(tensor)
        if self.server_model is not None:
            self.server_model.flat.set_values(parameters)
        self.serves_only = self.driver.worker is None
        """Whether this rank is a dedicated server: it calls `step()` like the others, but trains no model."""
        self._needs_closure = not self.serves_only and (algorithm.second_gradient or self.driver.may_wait)
        self._own = _OwnWorker(self.flat, None if self.driver.worker is None else self.driver.worker.rank)
        self.training = TrainingStep(
            algorithm, inner, local_steps, self.flat, active, self.driver, self._own,
            learning_rates=learning_rates, clipping=clipping,
        )  # fmt: skip
        self.replica_check = ReplicaCheck(
            self.driver, inner, self.flat, replicas=replicas, every=0 if algorithm.is_asynchronous else check_every,
            compares_parameters=algorithm.replicas_equal and not self.serves_only,
            compares_options=self.server_model is not None or not self.serves_only,
        )  # fmt: skip
        if self.driver.channel.rank == 0:
            state_once(learning_rates.statement())
            state_once(called_twice(algorithm))
        self._claim.take()
        self.guard_groups()

    @property
    def traffic(self) -> Traffic:
        """This rank's counters. A dedicated server counts nothing, because workers count both directions."""
        driver = self.driver
        meter = Meter() if driver.worker is None else driver.worker.meter
        control_bytes = driver.channel.control_bytes
        traffic = Traffic.of(meter, driver.rounds, driver.aborted_rounds, driver.seconds.sums(), control_bytes)
        if driver.replica_syncs:
            traffic = replace(traffic, replica_syncs=driver.replica_syncs)
        updates = driver.updates
        return traffic if updates is None else replace(traffic, staleness=updates.staleness, updates=updates.updates)

    def total_traffic(self) -> Traffic:
        """Return the sum of all workers' counters, on every rank. Collective: every rank must call it."""
        counts_nothing = self.serves_only and not self.algorithm.is_asynchronous
        return self.driver.total_traffic(None if counts_nothing else self.traffic)

    @opaque
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Take part in one round and apply its result. Returns the closure's loss, if there is a closure.

        A method with `second_gradient` (lasg, sasg) may call the closure twice, at two points. Parameters, gradients,
        random streams and buffers of the model are put back between the calls. A state that the closure keeps elsewhere
        (a hidden state, a counter, an iterator over the data) cannot be: it would move twice.

        Raises:
            RuntimeError: if no parameter has a gradient, a closure is needed and missing, or an optimizer that was made
                later has the parameters.
            PeerLostError: if a rank is missing.
            ReplicaError: if a check finds that the replicas differ.
        """
        if self._claim.lost:
            raise RuntimeError(f"step(): {self._claim.lost}")
        loss = self._evaluate(closure) if closure is not None or self._needs_closure else None
        if not self.serves_only:
            has_gradient = self.flat.has_gradient()
            if not any(has_gradient):
                raise RuntimeError("step() without gradients: no parameter has one; call loss.backward() before step()")
            self.training.active.note(has_gradient)
        scaler = vars(self)  # what GradScaler has set
        n_aborted = self.driver.aborted_rounds
        self.training.step(scaler.get(LOSS_SCALE), has_overflow=bool(scaler.get(OVERFLOW, 0)))
        if OVERFLOW in scaler and not self.algorithm.is_asynchronous:
            report_overflow(self, self.driver.aborted_rounds > n_aborted)
        self._own.second = None
        every = self.replica_check.every
        if every and self.driver.rounds % every == 0 and not self.training.n_taken:
            self.replica_check.check()
        return loss

    def _evaluate(self, closure: Callable[[], Any] | None) -> Any:  # noqa: ANN401
        """Wait until this worker may compute, then call the closure, if there is one. Returns its loss."""
        two_points, may_wait = self.algorithm.second_gradient, self.driver.may_wait
        if closure is None:
            why = "evaluates the mini-batch at two points"
            if may_wait:
                why = "with max_staleness may make this worker wait before it computes"
            raise RuntimeError(
                f"{self.algorithm.name} {why}, so step() needs a closure: "
                "def closure(): opt.zero_grad(); loss = loss_of(batch); loss.backward(); return loss"
            )
        if not self.serves_only and may_wait:
            parameters = self.driver.request_admission()
            if parameters is not None:
                self.flat.set_values(parameters)
        if not self.serves_only and two_points and self._model is not None:
            self._own.second = SecondGradient(self.flat, closure, self._model.buffers, self.driver.pool)
        with torch.enable_grad():
            return closure()

    @opaque
    @torch.no_grad()
    def exchange_steps(self) -> None:
        """Exchange the change of local steps since the last round, if any, and compare the replicas. Collective.

        Call it at a run's end.

        Raises:
            PeerLostError: if a rank is missing.
            ReplicaError: if the replicas differ.
        """
        self.training.exchange()
        self.replica_check.at_end()

    def _gather_used(self, indices: list[int]) -> Sequence[object]:
        n, what = len(self.flat.spec.shapes), f"for its list of used parameters, round {self.driver.rounds}"
        return self.driver.channel.gather(indices, what, [range(n)], max_bytes=2 + 12 * n)

    @opaque
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as the inner optimizer does."""
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state and, under "laconic", the method's state of this rank."""
        return compose(self.inner, self._identity(), self._parts())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, bit for bit. The parameters are part of the model's own state.

        Raises ValueError, before anything changes, for another algorithm, rank, number of workers, layout or model.
        """
        load(state_dict, self.inner, self._identity(), self._parts())

    def _identity(self) -> dict[str, Any]:
        job, rank = self.driver.job, self.driver.channel.rank
        own = {"n_workers": job.layout.n_workers}
        return identity_of(job, local_steps=self.training.local.many, rank=rank) | own

    def _parts(self) -> dict[str, Part]:
        parts: dict[str, Part] = {"driver": self.driver, "training": self.training}
        return parts if self.server_model is None else {**parts, "server_model": self.server_model}


class _OwnWorker:
    """The worker of this process, whose parameters the model always has; none if it only serves. See `Workers`."""

    def __init__(self, flat: FlatParameters, rank: int | None) -> None:
        """`rank`: the worker's rank; None if this process only serves."""
        self.present: Sequence[int] = () if rank is None else (rank,)
        self.applying = self.present
        self.second: SecondGradient | None = None
        """What evaluates this step's mini-batch at other parameters, if the method does that."""
        self._flat = flat

    def compute(self, rank: int) -> None:
        """Do nothing: users compute the gradient before they call `step`."""

    def gradient_at(self, rank: int) -> SecondGradient | None:
        """Return what evaluates this step's mini-batch at other parameters."""
        return self.second

    def start_of(self, rank: int, start: Tensor) -> Tensor:
        """Return `start` (d,): there is one model."""
        return start

    def load(self, rank: int, start: Tensor) -> None:
        """Do nothing, and nothing in `store` and `keep`: the model has this worker's parameters."""

    def store(self, rank: int) -> None:
        """See `load`."""

    def keep(self, rank: int) -> None:
        """See `load`."""

    def end_step(self, start: Tensor | None, *, exchanged: bool) -> None:
        """Give the model the parameters `start` (d,) again if the exchange was aborted."""
        if exchanged and start is not None:
            self._flat.set_values(start)

    def pull(self, models: Mapping[int, Result]) -> None:
        """Take the newest model that the server has sent."""
        for model in models.values():
            assert isinstance(model, Tensor), "a server sends its model as a vector"
            self._flat.set_values(model)
