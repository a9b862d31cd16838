"""Runs an experiment in the simulator, or as one rank of a process group."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.kernels.api import set_kernel_threads
from laconic.lab.runs.accuracy import in_simulation, over_processes
from laconic.lab.runs.agreement import agree_on_data, refusals_of_command_shown
from laconic.lab.runs.dense_sgd import DenseSGD
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.record import Record, Row
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.times import PhaseTimes, Stopwatch
from laconic.statements import mark_stated
from laconic.telemetry.traffic import Traffic
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.second_gradient import called_twice
from laconic.training.simulation import Simulation


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run after a step, with a row after an epoch."""

    settings: RunSettings
    step: int
    steps: int
    loss: float
    row: Row | None = None


Listener = Callable[[RunProgress], None]


def run_simulated(settings: RunSettings, listen: Listener) -> Record:
    """Run all workers in this process.

    Args:
        settings: The run.
        listen: Gets the progress after every step.
    """
    torch.set_num_threads(settings.threads)
    set_kernel_threads(settings.kernel_threads)
    experiment = Experiment(settings)
    mark_stated(called_twice(experiment.algorithm))  # the loss has no state of its own
    simulation = Simulation(
        experiment.model, experiment.inner, experiment.algorithm, workers=settings.workers, layout=settings.layout,
        local_steps=settings.local_steps, seed=settings.seed, link=settings.link(), compute_s=settings.compute_s(),
        faults=settings.fault_plan, lr="kept",
    )  # fmt: skip
    lr_schedule = experiment.scheduler()
    rows: list[Row] = []
    total = loss = 0.0
    for step in range(experiment.steps):
        down = simulation.down
        losses = simulation.step(lambda rank, step=step: experiment.loss(rank, step))  # type: ignore[misc]
        if step + 1 == experiment.steps:
            simulation.exchange_steps()  # fewer than local_steps may be left
        lr_schedule.step()
        known = [loss for rank, loss in enumerate(losses) if rank not in down]
        loss = sum(known) / len(known) if known else loss  # if all workers are down, the last loss counts again
        total += loss
        row = None
        if (step + 1) % experiment.steps_per_epoch == 0:
            row = Row.of(
                epoch=len(rows) + 1, loss=total / experiment.steps_per_epoch,
                accuracy=in_simulation(simulation, experiment),
                traffic=simulation.traffic, seconds=simulation.driver.clock.now_ns / 1e9 or None,
            )  # fmt: skip
            rows.append(row)
            total = 0.0
        listen(RunProgress(settings, step + 1, experiment.steps, loss, row))
    layout = simulation.driver.layout.name
    return _record(experiment, rows, layout, simulation.traffic)


def run_as_rank(settings: RunSettings, listen: Listener) -> Record:
    """Run as this rank of the default process group. Every rank must call it.

    Args:
        settings: The run.
        listen: Gets the progress of this rank after every step.
    """
    torch.set_num_threads(settings.threads)
    set_kernel_threads(settings.kernel_threads)
    with refusals_of_command_shown():
        experiment = Experiment(settings)
    agree_on_data(experiment, settings.timeout_s)
    mark_stated(called_twice(experiment.algorithm))  # the loss has no state of its own
    opt = DistributedOptimizer(
        experiment.inner, experiment.algorithm, model=experiment.model, layout=settings.layout,
        local_steps=settings.local_steps, seed=settings.seed, timeout_s=settings.timeout_s, lr="kept",
    )  # fmt: skip
    lr_schedule = experiment.scheduler()
    rank = dist.get_rank()
    rows: list[Row] = []
    total = 0.0
    exchanged = opt.flat.values()
    stopwatch = Stopwatch(opt) if settings.record_times else None
    start = time.perf_counter()
    for step in range(experiment.steps):
        rounds = opt.driver.rounds
        loss = _take_step(opt, experiment, rank, step)
        if step + 1 == experiment.steps:
            opt.exchange_steps()  # fewer than local_steps may be left
        lr_schedule.step()
        if opt.driver.rounds > rounds and settings.local_steps > 1:
            exchanged = opt.flat.values()
        total += loss
        row = None
        if (step + 1) % experiment.steps_per_epoch == 0:
            ended = time.perf_counter()
            losses = opt.driver.channel.gather(total, "for its loss", float, max_bytes=64)
            here = (
                exchanged if settings.local_steps > 1 else opt.flat.values()
            )  # after local steps the workers' parameters differ
            row = Row.of(
                epoch=len(rows) + 1, loss=sum(losses) / settings.workers / experiment.steps_per_epoch,
                accuracy=over_processes(opt, experiment, here),
                traffic=opt.total_traffic(), seconds=time.perf_counter() - start,
            )  # fmt: skip
            rows.append(row)
            total = 0.0
            if stopwatch is not None:
                stopwatch.evaluated(ended)
        listen(RunProgress(settings, step + 1, experiment.steps, loss, row))
    times = None if stopwatch is None else stopwatch.everybodys()
    return _record(experiment, rows, opt.driver.layout.name, opt.total_traffic(), times)


def _take_step(opt: DistributedOptimizer, experiment: Experiment, rank: int, step: int) -> float:
    """Take one step of this rank and return its loss; 0 on a rank that only serves."""
    if opt.serves_only:
        opt.step()
        return 0.0

    def closure() -> Tensor:
        opt.zero_grad()
        loss = experiment.loss(rank, step)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return float(opt.step(closure).detach())


def _record(
    experiment: Experiment,
    rows: list[Row],
    layout: str,
    traffic: Traffic,
    times: PhaseTimes | None = None,
) -> Record:
    settings = experiment.settings
    return Record(
        settings=settings, spec=experiment.spec, rows=rows, layout=layout,
        traffic=traffic, times=times, dense_rounds=sum(map(experiment.algorithm.dense_in, range(traffic.rounds))),
        guess=experiment.guess(),
        dense_sgd=DenseSGD.of(
            spec=experiment.spec, workers=settings.workers, layout=settings.layout, steps=experiment.steps,
            local_steps=settings.local_steps,
        ),
    )  # fmt: skip
