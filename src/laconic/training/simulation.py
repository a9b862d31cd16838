"""`Simulation`: a user's model and optimizer, trained by many simulated workers in one process."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, Never, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.drivers.simulated.arrivals import SimulatedArrivals
from laconic.drivers.simulated.rounds import Frames, Simulated
from laconic.faults.plan import FaultPlan
from laconic.hyperparameters import plain_number
from laconic.network import ComputeTime, Link, Sites
from laconic.statements import state_once
from laconic.telemetry.count_table import VIRTUAL
from laconic.telemetry.html import html_table
from laconic.telemetry.traffic import Traffic
from laconic.training.active_parameters import ActiveParameters
from laconic.training.clipping import clipping_of
from laconic.training.flat_parameters import FlatParameters
from laconic.training.inner_checks import check_inner
from laconic.training.learning_rates import Choice, LearningRates
from laconic.training.local_steps import check_local_steps
from laconic.training.optimizer_arguments import check_model, check_seed
from laconic.training.replaced_tensors import HeldModel
from laconic.training.second_gradient import called_twice
from laconic.training.server_model import ServerModel
from laconic.training.side_by_side import check_side_by_side
from laconic.training.simulated_state import as_simulation
from laconic.training.simulated_workers import SimulatedWorkers
from laconic.training.state_dict import (
    InnerLoad,
    Part,
    check_identity,
    check_parts,
    checked,
    composed,
    identity_of,
    split,
    take_part,
    with_names,
)
from laconic.training.training_step import TrainingStep


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
        sites: Sites | None = None,
        compute_s: float | Mapping[int, float] | ComputeTime = 0.0,
        faults: FaultPlan | None = None,
        frames: Frames = "auto",
        clip_norm: float | None = None,
        clip_value: float | None = None,
        lr: Choice | None = None,
        sparse_gradients: str = "refuse",
        clients_per_round: int | None = None,
        side_by_side: int = 1,
    ) -> None:
        """Set up the simulated workers.

        Args:
            model: the model to train.
            inner: its optimizer.
            algorithm: the method that exchanges gradients.
            workers: number of workers.
            layout: "auto", "allreduce", "rank0", "dedicated", "sharded", "allgather" or "peers".
            local_steps: steps per exchange.
            seed: seed of all random draws of the method, the network and the faults.
            link: the link of every node; by default it is unlimited.
            links: exceptions, by node.
            sites: where the nodes are, and the line between; by default all are at one place.
            compute_s: virtual time of one gradient, seconds: of all workers, by worker, or as a distribution.
            faults: the faults to simulate.
            frames: "encoded" encodes and decodes frames as processes do; "sized" only computes their sizes, with the
                same result; "auto" does the latter where no fault may damage a frame.
            clip_norm: as for `DistributedOptimizer`.
            clip_value: as for `DistributedOptimizer`.
            lr: as for `DistributedOptimizer`.
            sparse_gradients: "refuse" them, or make them "dense", as layers with sparse=False would have them.
            clients_per_round: how many workers take part in a round, chosen anew in each by the seed; None for all. The
                method divides by this number. The others compute nothing, and their losses are NaN.
            side_by_side: how many workers' backward passes run at once, on a core each, with the same bits. Then
                `loss_of` is called for the next workers before a worker's gradient is used, still in rank order. All
                must start from one model: methods whose models differ, second gradients and local steps are refused.

        Raises:
            TypeError: for wrong arguments.
            ValueError: for wrong arguments.
        """
        _check_objects(model, inner, algorithm, link, links, sites, faults)
        check_local_steps(algorithm, local_steps)
        check_inner(inner, algorithm, local_steps)
        check_model(inner, model, None, sparse_gradients)
        check_seed(seed)
        workers, local_steps, seed = plain_number(workers, "workers", int), int(local_steps), int(seed)
        side_by_side = plain_number(side_by_side, "side_by_side", int)
        if isinstance(compute_s, str) or not isinstance(compute_s, Mapping | ComputeTime):
            compute_s = plain_number(compute_s, "compute_s")
        loaded = take_part(inner)
        self.model = model
        self.inner = inner
        self.algorithm = algorithm
        self.flat = FlatParameters(inner, model, sparse_gradients=sparse_gradients)
        active = ActiveParameters(self.flat.sizes)
        learning_rates = LearningRates(inner, algorithm, lr)
        clipping = clipping_of(clip_norm, clip_value, algorithm, self.flat, model)
        self.server_model = ServerModel(inner, active, learning_rates, clipping) if algorithm.server_steps else None
        options: dict[str, Any] = {
            "spec": self.flat.spec, "n_workers": workers, "dtype": self.flat.dtype, "device": self.flat.device,
            "layout": layout, "seed": seed, "link": link, "links": links, "sites": sites, "compute_s": compute_s,
            "faults": faults,
            "frames": frames,
            "clients_per_round": clients_per_round,
            "descend": self.server_model.descend if self.server_model else None, "active": active,
        }  # fmt: skip
        self.driver: Simulated
        if algorithm.is_asynchronous:
            self.driver = SimulatedArrivals(algorithm, parameters=self.flat.values(), **options)
        else:
            self.driver = Simulated(algorithm, sparse_results=True, **options)
        self._workers = SimulatedWorkers(
            model, inner, self.flat, active, self.driver, self.server_model, side_by_side=side_by_side
        )
        self.training = TrainingStep(
            algorithm, inner, local_steps, self.flat, active, self.driver, self._workers,
            learning_rates=learning_rates, clipping=clipping,
        )  # fmt: skip
        steps_before = self.training.local.are_taken and not self.training.local.is_known_in(0)
        check_side_by_side(
            side_by_side, algorithm, local_steps, steps_before=steps_before, device=self.flat.device.type
        )
        state_once(learning_rates.statement())
        state_once(called_twice(algorithm))

        follows = self.server_model is not None or not algorithm.replicas_equal
        self._held = HeldModel(self.flat, self._workers) if follows else None
        if loaded is not None:
            self._restore(self._read(loaded, inner.state_dict()))

    def __repr__(self) -> str:
        return (
            f"Simulation({type(self.model).__name__}, {type(self.inner).__name__}, {self.algorithm!r}, "
            f"workers={self.n_workers}, layout={self.driver.layout.name!r}): {self.flat.d:,} parameters, round "
            f"{self.driver.rounds}"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the job, then `traffic`."""
        rows = [
            ["model", f"{type(self.model).__name__}, {self.flat.d:,} parameters"],
            ["inner", type(self.inner).__name__],
            ["algorithm", repr(self.algorithm)],
            ["workers", f"{self.n_workers}, layout {self.driver.layout.name}"],
        ]
        return html_table(rows, title="Simulation", header=False) + self.traffic._repr_html_()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a simulation of its own, with a copy of the model and of the inner optimizer."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        vars(copied).update(deepcopy(vars(self), memo))
        return copied

    def __reduce_ex__(self, protocol: Any) -> Never:  # noqa: ANN401
        """Raise TypeError: a file holds no functions of a running program, and a copy of the surface alone no state."""
        raise TypeError(
            "a Simulation cannot be pickled, nor copied without its model; save simulation.state_dict() and the "
            "model's, or take copy.deepcopy((model, simulation))"
        )

    def accept_equal_gradients(self) -> None:
        """Give no warning where workers bring the same first gradient: for a loss that takes no mini-batches."""
        self._workers.accept_equal_gradients()

    @property
    def n_workers(self) -> int:
        return len(self.driver.workers)

    @property
    def down(self) -> frozenset[int]:
        """Ranks of the workers that miss the next step: a fault plan says so, or others are chosen."""
        return frozenset(range(self.n_workers)) - {*self._workers.present}

    def traffic_of(self, rank: int) -> Traffic:
        """Return one worker's counters. Seconds are virtual: the clock at the end of the last round.

        Raises:
            ValueError: There is no worker of this rank.
        """
        self._check_rank(rank)
        driver = self.driver
        seconds = {VIRTUAL: driver.clock.now_ns / 1e9}
        faults = driver.injector.counts[rank]
        traffic = Traffic.of(driver.workers[rank].meter, driver.rounds, driver.aborted_rounds, seconds, faults=faults)
        counts = driver.updates_of(rank)
        return traffic if counts is None else replace(traffic, staleness=dict(counts.staleness), updates=counts.updates)

    @property
    def traffic(self) -> Traffic:
        """The sum of all workers' counters."""
        total = self.traffic_of(0)
        for rank in range(1, self.n_workers):
            total = total + self.traffic_of(rank)
        return total

    @torch.no_grad()
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

        Raises:
            TypeError: `loss_of` is no function, or has returned no tensor.
            RuntimeError: A worker's loss gives no parameter of the model a gradient.
        """
        if not callable(loss_of):
            raise TypeError(
                f"loss_of={type(loss_of).__name__} must be a function: loss_of(rank) computes the loss of one worker, "
                "such as simulation.step(lambda rank: cross_entropy(model(inputs[rank]), labels[rank]))"
            )
        if self._held is not None:
            self._held.take_up()
        self._workers.begin_step(loss_of)
        self.training.step()
        self._workers.average_buffers()
        if self._held is not None:
            self._held.end_step()
        return list(self._workers.losses)

    @torch.no_grad()
    def exchange_steps(self) -> None:
        """Exchange the change of local steps since the last round, if any. Call it at a run's end."""
        self.training.exchange()
        if self._held is not None:
            self._held.end_step()

    def parameters_of(self, rank: int) -> Tensor:
        """Return a copy of worker `rank`'s parameters after the last exchange, (d,).

        Raises:
            ValueError: There is no worker of this rank.
        """
        self._check_rank(rank)
        return self._workers.replicas[rank].clone() if self._workers.replicas else self.flat.values()

    def _check_rank(self, rank: int) -> None:
        if not 0 <= rank < self.n_workers:
            raise ValueError(
                f"rank={rank} must be within 0 .. {self.n_workers - 1}, one of the {self.n_workers} workers"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state and, under "laconic", that of all workers and servers and of the clock.

        The shown parameters and buffers are part of the model's own state.
        """
        parts = {name: part.saved() for name, part in self._parts().items()}
        return composed(self.inner, {**self._identity(), **parts})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, before the first step; with as many workers, bit for bit.

        The state may be of another number of workers, those of the leading ranks being the same. The rules of the
        method's slots then say what becomes of each memory, and what leaving workers have counted is added to worker
        0's counts.

        Raises:
            ValueError: for another algorithm, layout, model, seed or local steps, or values that a memory cannot have.
                Nothing has changed then.
        """
        inner_state, part = split(state_dict)
        if part is None:
            raise ValueError(
                "state_dict: no 'laconic' part: this is the state of an optimizer alone; load it into `inner` before "
                "the Simulation is made"
            )
        new = self._read(part, inner_state)
        InnerLoad(self.inner).load(inner_state)
        self._restore(new)

    def _read(self, part: Mapping[str, Any], inner_state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a saved part that fits. Raises ValueError for another."""
        new: dict[str, Any] = {}
        checked(lambda: new.update(self._as_simulation(part, inner_state)), "the part 'laconic'")
        check_identity(new, self._identity(), "make the simulation as it was made when the state was saved")
        check_parts(new, self._parts())
        return new

    def _restore(self, new: Mapping[str, Any]) -> None:
        for name, each in self._parts().items():
            each.restore(new[name])
        if self._held is not None:
            self._held.forget()

    def _as_simulation(self, part: Mapping[str, Any], inner_state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a saved part with this model's names; one that ranks have gathered as a simulation's."""
        renamed = with_names(part, self.flat.spec.names)
        if "n_workers" not in renamed:
            return renamed
        n_nodes, buffers = self.driver.network.n_nodes, [buffer.clone() for buffer in self.model.buffers()]
        return as_simulation(renamed, inner_state, self._identity(), n_nodes, buffers)

    def _identity(self) -> dict[str, Any]:
        return identity_of(self.driver.job, local_steps=self.training.local.many, rank=None)

    def _parts(self) -> dict[str, Part]:
        parts: dict[str, Part] = {"driver": self.driver, "training": self.training, "workers": self._workers}
        return parts if self.server_model is None else {**parts, "server_model": self.server_model}


def _check_objects(
    model: object, inner: object, algorithm: object, link: object, links: object, sites: object, faults: object
) -> None:
    """Raise TypeError for an argument that is no object of its class."""
    one_link = "must be a laconic.Link, such as laconic.Link(bytes_per_s=12.5e6, latency_s=0.01)"
    expected = (
        ("model", model, torch.nn.Module, "must be a torch.nn.Module"),
        ("inner", inner, Optimizer, "must be a torch.optim.Optimizer"),
        ("algorithm", algorithm, Algorithm, "must be an algorithm such as laconic.CompSkip()"),
        ("link", link, Link | None, one_link),
        ("sites", sites, Sites | None, "must be laconic.network.Sites, such as Sites(sizes=(2, 2), line=Link(...))"),
        ("links", links, Mapping | None, "must be links by node, such as {2: laconic.Link(bytes_per_s=1e6)}"),
        ("faults", faults, FaultPlan | None, "must be a laconic.FaultPlan, or None"),
    )
    for name, value, kind, remedy in expected:
        if not isinstance(value, kind):
            raise TypeError(f"{name}={value!r:.80} {remedy}")
    for node, of_node in links.items() if isinstance(links, Mapping) else ():
        plain_number(node, "links: node", int)
        if not isinstance(of_node, Link):
            raise TypeError(f"links[{node}]={of_node!r:.80} {one_link}")
