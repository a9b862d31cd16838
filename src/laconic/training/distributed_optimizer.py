"""`DistributedOptimizer`: a user's optimizer that steps with the combined gradients of all ranks.

One call of `step()` is one round. The training loop does not change: zero_grad, backward, step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.drivers.distributed.arrivals import ProcessArrivals
from laconic.drivers.distributed.meeting import shows_refusals
from laconic.drivers.distributed.nodes import Nodes
from laconic.drivers.distributed.rounds import TOPIC, Processes
from laconic.statements import state_once
from laconic.telemetry.traffic import Traffic
from laconic.torch_compat import LOSS_SCALE, OVERFLOW, caller_named, opaque, report_overflow, without_gradients
from laconic.training.active_parameters import ActiveParameters, UsedByRanks
from laconic.training.agreed_settings import agreed_settings, check_order
from laconic.training.automatic import Automatic, Method, Undecided, load_chosen, may_choose
from laconic.training.buffers import Buffers, SharedBuffers, check_share, chosen_buffers
from laconic.training.checkpoints import Checkpoints, say_if_loaded
from laconic.training.claims import Claim
from laconic.training.clipping import clipping_of
from laconic.training.flat_parameters import FlatParameters
from laconic.training.initial_gradient import InitialGradient
from laconic.training.joining import Joining, check_join
from laconic.training.kernel_preparation import KernelPreparation
from laconic.training.learning_rates import Choice, LearningRates
from laconic.training.node_mean import NodeMean
from laconic.training.optimizer_arguments import check_arguments, check_plain, fixed_tensors, method_of
from laconic.training.own_worker import OwnWorker
from laconic.training.replaced_tensors import ReplacedTensors
from laconic.training.replica_check import ReplicaCheck
from laconic.training.second_gradient import SecondGradient, called_twice, why_a_closure
from laconic.training.server_model import ServerModel
from laconic.training.state_dict import split, take_part
from laconic.training.training_step import TrainingStep
from laconic.training.wrapping import OptimizerAround


class DistributedOptimizer(OptimizerAround):
    """Wraps any `torch.optim` optimizer. Every rank of the process group must make one, and call `step` equally often.

    After `step()`, a parameter's `.grad` holds the direction that was applied. Its memory is reused when no parameter
    holds it, so clone it to keep it. If any rank meets inf or NaN, the round is aborted: it changes no parameter and no
    memory on any rank, and is counted in `traffic.aborted_rounds`. Weight decay of the inner optimizer is added after
    the exchange, so it is neither compressed nor voted on.
    """

    automatic: Automatic | None = None
    """What chooses the method, and what it has chosen; None if a method was given."""
    undecided: Undecided | None = None
    _in_step: Callable[..., Processes] = Processes

    @shows_refusals(TOPIC)
    @may_choose
    def __init__(
        self,
        inner: Optimizer,
        algorithm: Method,
        *,
        model: torch.nn.Module | None = None,
        layout: str = "auto",
        local_steps: int = 1,
        seed: int = 0,
        check_every: int = 100,
        replicas: str = "sync",
        buffers: Buffers | None = None,
        buffers_every: int = 100,
        timeout_s: float | None = None,
        group: dist.ProcessGroup | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        lr: Choice | None = None,
        sparse_gradients: str = "refuse",
        clients_per_round: int | None = None,
        nodes: Nodes = None,
        allowed: Sequence[Algorithm] | None = None,
    ) -> None:
        """Broadcast rank 0's parameters, frozen ones included, and the buffers of `model`. Collective.

        Args:
            inner: the optimizer to wrap.
            algorithm: the method that exchanges gradients; "auto" measures in the first step, and takes the fastest.
            model: gives the parameters' names for saved state, and the buffers.
            layout: "auto", "allreduce", "rank0", "dedicated", "sharded", "allgather" or "peers".
            local_steps: calls of `step()` per exchange.
            seed: seed of all random draws of the method.
            check_every: rounds between two comparisons of the replicas, and of the optimizers' options; 0 for never.
            replicas: what happens to replicas that differ by rounding, as on unlike processors: "sync" gives all ranks
                rank 0's again, "stop" raises ReplicaError. Larger differences always raise.
            buffers: whose batch-norm statistics and other buffers all ranks get: "rank0", "average" or "local", each
                its own. None for "rank0", as with DistributedDataParallel, or "local" if workers' models may differ.
            buffers_every: rounds between two times that they get them; 0 for only in `share_buffers()`.
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
            clients_per_round: how many workers send something in a round, chosen anew in each by the seed; None for
                all. The method divides by this number. The others only get the answers: see `rests`.
            nodes: "auto" for the ranks of each host, or a number N of nodes with equally many consecutive ranks: they
                average their gradients, and the method exchanges between nodes, each as one worker. None for none.
            allowed: what "auto" may choose, beside plain all-reduce; None for csgd and ec-sgd, as `planning.choose`.

        Raises:
            ValueError: for wrong arguments, before anything is sent; TypeError for wrong types. The other ranks learn
                it at once.
            SetupError: if ranks differ in what they must have in common, or another one refused its own arguments.
            PeerLostError: if a rank is missing.
        """
        check_plain(layout, seed, check_every)
        algorithm = method_of(algorithm)
        check_arguments(inner, algorithm, model, local_steps, check_every, replicas, timeout_s, group, sparse_gradients)
        local_steps, seed, check_every = int(local_steps), int(seed), int(check_every)  # numpy's too
        buffers = chosen_buffers(buffers, buffers_every, model, algorithm)
        super().__init__(inner)
        loaded = take_part(inner)
        self.flat = FlatParameters(inner, model, sparse_gradients=sparse_gradients)
        learning_rates = LearningRates(inner, algorithm, lr)
        clipping = clipping_of(clip_norm, clip_value, algorithm, self.flat, model)
        self._claim = Claim(self.flat, group)
        self._claim.check()
        self.algorithm = algorithm
        self.model = model
        active = ActiveParameters(self.flat.sizes, used_by_ranks := UsedByRanks())
        self.server_model = ServerModel.lending(algorithm, inner, active, learning_rates, clipping)
        parameters = self.flat.values_by_torch()
        fixed = fixed_tensors(inner, model)
        self.driver: Processes = (ProcessArrivals if algorithm.is_asynchronous else self._in_step)(
            algorithm, parameters=parameters, spec=self.flat.spec, group=group, layout=layout, seed=seed, active=active,
            timeout_s=timeout_s, descend=self.server_model.descend if self.server_model else None,
            clients_per_round=clients_per_round, nodes=nodes,
            kernels=KernelPreparation(
                algorithm=algorithm, flat=self.flat, local_steps=local_steps, clip=(clip_norm, clip_value),
                speaks=not dist.get_rank(group),
            ),
            agreed={
                "local_steps": local_steps, "check_every": check_every, "replicas": replicas,
                "clip_norm": clip_norm, "clip_value": clip_value, "sparse_gradients": sparse_gradients,
                "lr_factor": learning_rates.factor, "buffers": buffers, "buffers_every": buffers_every,
                **agreed_settings(inner, self.flat, fixed),
                **({} if loaded is None else {"state loaded into inner": str(loaded.get("algorithm"))}),
                **(self.automatic.agreed() if self.automatic else {}),
            },
        )  # fmt: skip
        used_by_ranks.gather_over(self.driver)
        channel, training_ranks = self.driver.channel, self.driver.training_ranks
        if not self.flat.is_named:
            check_order(self.flat, channel)
        self.flat.set_values(parameters)
        for tensor in fixed:
            channel.share(tensor)
        if self.server_model is not None:
            self.server_model.flat.set_values(parameters)
        self.serves_only = channel.rank not in training_ranks
        """Whether this rank is a dedicated server: it calls `step()` like the others, but trains no model."""
        self._buffers_every = buffers_every
        self._buffers = SharedBuffers.of(
            model, channel, buffers, trains=not self.serves_only, n_workers=len(training_ranks)
        )
        is_compared = len(training_ranks) > 1 and not self.serves_only
        self._initial = InitialGradient(channel, training_ranks) if is_compared else None
        self.joining: Joining | None = None
        self._needs_closure = not self.serves_only and (algorithm.second_gradient or self.driver.may_wait)
        self._own = OwnWorker(self.flat, self.driver)
        self.training = TrainingStep(
            algorithm, inner, local_steps, self.flat, active, self.driver, self._own,
            learning_rates=learning_rates, clipping=clipping,
        )  # fmt: skip
        self.training.local.owns_model = True
        self._node_mean = NodeMean.of(self.flat, self.driver, steps_locally=self.training.local.are_taken)
        self.replica_check = ReplicaCheck(
            self.driver, inner, self.flat, replicas=replicas, every=0 if algorithm.is_asynchronous else check_every,
            compares_parameters=algorithm.replicas_equal and not self.serves_only,
            compares_options=self.server_model is not None or not self.serves_only,
            server_holds_model=self.server_model is not None,
        )  # fmt: skip
        for statement in (learning_rates.statement(), called_twice(algorithm)) if channel.rank == 0 else ():
            state_once(statement)
        self._claim.take()
        self.guard_groups()
        inner.register_load_state_dict_post_hook(say_if_loaded)
        self._replaced = ReplacedTensors(self.flat, model)
        self.checkpoints = Checkpoints(inner, self.driver, self.training, self.flat, self.server_model)
        if loaded is not None:
            self.checkpoints.take_up(loaded)

    def accept_equal_gradients(self) -> None:
        """Give no warning where workers bring the same first gradient: for a loss that takes no mini-batches."""
        self._initial = None

    @property
    def rests(self) -> bool:
        """Whether this rank's worker sends nothing in the next round, so that it needs no gradient for `step()`."""
        return self.driver.rests

    @property
    def traffic(self) -> Traffic:
        """This rank's counters. A dedicated server counts only what it serves: workers count both directions."""
        return self.driver.traffic

    def total_traffic(self) -> Traffic:
        """Return the sum of all workers' counters, on every rank. Collective: every rank must call it."""
        counts_nothing = self.serves_only and not self.algorithm.is_asynchronous
        return self.driver.total_traffic(None if counts_nothing else self.traffic)

    @opaque
    @without_gradients
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Take part in one round and apply its result. Returns the closure's loss, if there is a closure.

        A method with `second_gradient` (lasg, sasg) may call the closure twice, at two points. Parameters, gradients,
        random streams and buffers are put back between the calls. A state that the closure keeps elsewhere (a counter,
        an iterator over the data) cannot be: it would move twice.

        Raises:
            RuntimeError: if no parameter has a gradient, a closure is needed and missing, or an optimizer that was made
                later has the parameters.
            PeerLostError: if a rank is missing.
            ReplicaError: if a check finds that the replicas differ.
        """
        if self._claim.lost:
            raise RuntimeError(f"step(): {self._claim.lost}")
        if not self.inner.state and not self.inner.param_groups[0].get("lr") and caller_named("_init_optim_state"):
            return self.inner.step()  # torch makes its state; that is no step of training, and no rank waits
        if self.undecided is not None:
            self.undecided.measure()
        if closure is None and self._needs_closure:
            raise RuntimeError(why_a_closure(self.algorithm, may_wait=self.driver.may_wait))
        self._replaced.check()
        if self.replica_check.is_start and self.algorithm.is_asynchronous:  # before it waits to be admitted
            self.replica_check.at_start(self.training.n_taken)
        if self.joining is not None and not self.joining.goes_on(has_data=True):
            return None
        loss = None if closure is None else self._evaluate(closure)
        scaler, n_aborted = self.__dict__, self.driver.aborted_rounds  # GradScaler sets attributes
        has_overflow = OVERFLOW in scaler and bool(scaler[OVERFLOW])
        if self.driver.rests:
            self.flat.drop_gradients()
        elif not self.serves_only:
            has_gradient = self.flat.has_gradient()
            if True not in has_gradient:
                raise RuntimeError("step() without gradients: no parameter has one; call loss.backward() before step()")
            if self._initial is not None:
                self._initial.show(self.flat.parameters)
            if self._node_mean is not None:
                has_gradient, has_overflow = self._node_mean.take(has_gradient, has_overflow=has_overflow)
            self.training.active.note(has_gradient)
        self._finish_step(scaler.get(LOSS_SCALE), has_overflow=has_overflow)
        if OVERFLOW in scaler and not self.algorithm.is_asynchronous:
            report_overflow(self, self.driver.aborted_rounds > n_aborted)
        if self._initial is not None and self._initial.is_compared():
            self._initial = None
        return loss

    @torch.no_grad()
    def shadow(self) -> None:
        """Take part in a step of the others without a mini-batch; see `join`."""
        if not self.serves_only:
            self.flat.drop_gradients()
            self.training.active.note([False] * len(self.flat.parameters))
        self._finish_step(None)

    def _finish_step(self, loss_scale: Tensor | None, *, has_overflow: bool = False) -> None:
        if self.joining is not None:
            loss_scale = self.joining.scaled(loss_scale, self.flat)
        if (held := self.checkpoints.held) is not None and self.driver.sessions.meanwhile is None:
            held.take_up()  # else while packets come
        if self.replica_check.is_start:
            self.replica_check.at_start(self.training.n_taken)
        self.training.step(loss_scale, has_overflow=has_overflow)
        self._own.second = self.checkpoints.others = None
        if held is not None:
            held.end_step()
        if (every := self.replica_check.every) and self.driver.rounds % every == 0 and not self.training.n_taken:
            self.replica_check.check()
        if self._buffers is not None and not self.training.n_taken:
            self._buffers.after_round(self.driver.rounds, self._buffers_every)

    def _evaluate(self, closure: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Wait until this worker may compute, then call the closure. Returns its loss."""
        two_points, may_wait = self.algorithm.second_gradient, self.driver.may_wait
        if not self.serves_only and may_wait:
            parameters = self.driver.request_admission()
            if parameters is not None:
                self.flat.set_values(parameters)
        if not self.serves_only and two_points and self.model is not None:
            self._own.second = SecondGradient(self.flat, closure, self.model.buffers, self.driver.pool)
        with torch.enable_grad():
            return closure()

    @opaque
    @torch.no_grad()
    def exchange_steps(self) -> None:
        """At a run's end, exchange the change of local steps since the last round; compare the replicas. Collective.

        Raises:
            PeerLostError: if a rank is missing.
            ReplicaError: if the replicas differ.
        """
        self.training.exchange()
        self.replica_check.at_end()

    def join(
        self, divide_by_initial_world_size: bool = True, enable: bool = True, throw_on_early_termination: bool = False
    ) -> Joining:
        """Return a context in which ranks may call `step()` unequally often, as `DistributedDataParallel.join`.

        At its end a rank whose mini-batches have run out shadows the others' steps: it brings a gradient of zeros, or
        no change after local steps, and applies the results. Each step in it begins with one all-reduce of one number,
        and while ranks are in shadow they take over the others' learning rates. Collective: all ranks enter it.

        Args:
            divide_by_initial_world_size: whether a mean is divided by the number of all workers. If not, gradients are
                divided by the number of those that still have data.
            enable: whether the context does anything.
            throw_on_early_termination: whether all ranks raise RuntimeError once one has run out of data.

        Raises:
            ValueError: if a rank without data cannot take part in the method's rounds, as in a vote.
        """
        if self.undecided is not None:
            self.undecided.measure()
        check_join(self.driver, self.training.local.many, by_initial_size=divide_by_initial_world_size)
        return Joining(
            self, self.driver.channel, self.driver.layout.n_workers, by_initial_size=divide_by_initial_world_size,
            throws=throw_on_early_termination, enabled=enable,
        )  # fmt: skip

    @torch.no_grad()
    def share_buffers(self, how: Buffers | None = None) -> None:
        """Make the model's buffers, such as batch-norm statistics, equal on all ranks: before evaluation. Collective.

        Those of floats become the ranks' mean with `how="average"`, and rank 0's with "rank0"; the others are rank 0's.
        Only buffers that a rank has changed since they were last equal travel; they count as control bytes.

        Args:
            how: by default what `buffers` says, or "rank0" if they are local.

        Raises:
            ValueError: if `model` was not given, or for another `how`.
            PeerLostError: if a rank is lost.
        """
        check_share(how, self.model)
        if self._buffers is not None:
            self._buffers.share(how)

    def close(self) -> None:
        """Leave the process group that this optimizer has made, with its threads and descriptors.

        Not collective: ranks that still wait for this one raise PeerLostError with the reason. Afterwards `step()` and
        what else communicates raises ClosedError; `traffic` and `state_dict()` still work.
        """
        self.driver.close()
        self._claim.lost = self._claim.lost or self.driver.channel.door.closed
        self.release_groups()

    def __repr__(self) -> str:
        layout, channel, lr = self.driver.layout, self.driver.channel, self.param_groups[0].get("lr")
        made = f"{type(self.inner).__name__}(lr={lr}), {self.algorithm!r}, layout={layout.name!r}"
        return (
            f"DistributedOptimizer({made}, local_steps={self.training.local.many}): rank {channel.rank} of "
            f"{channel.size}, {self.flat.d:,} parameters, round {self.driver.rounds}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state and the method's, of this rank or as it was gathered. It never waits."""
        return self.checkpoints.saved()

    def gather_state(self, rank: int | None = None) -> dict[str, Any]:
        """Gather the state of all ranks, on `rank` or on every one; until the next step, `state_dict()` returns it too.

        It needs memory for what all ranks keep; the other ranks get their own state. Collective. Raises ValueError for
        a wrong rank, RuntimeError if one cannot be saved now, PeerLostError.
        """
        self.checkpoints.gather(rank)
        return self.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. The parameters are part of the model's own state. Collective.

        Where each rank loads what it saved, or all load a whole state, training goes on bit for bit. A state of one
        rank, of another number of ranks or of another layout is taken as far as it goes, and a statement says how far.

        Raises PeerLostError, and ValueError for a state of another algorithm, model or round, or with values that
        cannot be: then nothing has changed on any rank.
        """
        load_chosen(self, lambda: split(state_dict)[1], lambda: self.checkpoints.load(state_dict))
        self.replica_check.is_start = True
