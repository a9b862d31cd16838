"""Runs an experiment: in the simulator, or as one rank of a process group."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from laconic.lab.experiment import Experiment
from laconic.lab.record import Record, Row
from laconic.lab.settings import RunSettings
from laconic.optimizer import DistributedOptimizer
from laconic.simulation import Simulation


@dataclass(frozen=True)
class Progress:
    """Where a run is; sent after every round, with a row after every epoch."""

    settings: RunSettings
    round: int
    rounds: int
    loss: float
    row: Row | None = None


Listener = Callable[[Progress], None]


def run_simulated(settings: RunSettings, listen: Listener) -> Record:
    """All workers in this process."""
    torch.set_num_threads(settings.threads)
    experiment = Experiment(settings)
    simulation = Simulation(
        experiment.model, experiment.inner, settings.build(), workers=settings.workers, server=settings.server,
        seed=settings.seed, link=settings.link(), compute_s=settings.compute_s(),
    )  # fmt: skip
    schedule = experiment.scheduler()
    rows: list[Row] = []
    total = 0.0
    for round_ in range(experiment.rounds):
        losses = simulation.step(lambda rank, round_=round_: experiment.loss(rank, round_))  # type: ignore[misc]
        schedule.step()
        loss = sum(losses) / len(losses)
        total += loss
        row = None
        if (round_ + 1) % experiment.rounds_per_epoch == 0:
            row = Row.of(
                epoch=len(rows) + 1, loss=total / experiment.rounds_per_epoch, accuracy=experiment.accuracy(),
                traffic=simulation.traffic, seconds=simulation.driver.clock.now_ns / 1e9,
            )  # fmt: skip
            rows.append(row)
            total = 0.0
        listen(Progress(settings, round_ + 1, experiment.rounds, loss, row))
    return Record(
        settings=settings,
        n_parameters=experiment.d,
        layers=simulation.flat.sizes, rows=rows,
        layout=simulation.driver.layout.name, traffic=simulation.traffic,
    )  # fmt: skip


def run_as_rank(settings: RunSettings, listen: Listener) -> Record:
    """This process's part in a run of the default process group; every rank calls it. Rank 0 should listen."""
    torch.set_num_threads(settings.threads)
    experiment = Experiment(settings)
    opt = DistributedOptimizer(
        experiment.inner, settings.build(), model=experiment.model, server=settings.server, seed=settings.seed,
        timeout_s=settings.timeout_s,
    )  # fmt: skip
    schedule = experiment.scheduler()
    rank = dist.get_rank()
    rows: list[Row] = []
    total = 0.0
    start = time.perf_counter()
    for round_ in range(experiment.rounds):
        loss = 0.0
        if not opt.serves_only:
            opt.zero_grad()
            batch_loss = experiment.loss(rank, round_)
            batch_loss.backward()  # type: ignore[no-untyped-call]
            loss = float(batch_loss.detach())
        opt.step()
        schedule.step()
        total += loss
        row = None
        if (round_ + 1) % experiment.rounds_per_epoch == 0:
            everybody = opt.driver.channel.gather(total, "for its loss")
            row = Row.of(
                epoch=len(rows) + 1, loss=sum(everybody) / settings.workers / experiment.rounds_per_epoch,
                accuracy=experiment.accuracy() if rank == 0 else 0.0,
                traffic=opt.total_traffic(), seconds=time.perf_counter() - start,
            )  # fmt: skip
            rows.append(row)
            total = 0.0
        listen(Progress(settings, round_ + 1, experiment.rounds, loss, row))
    return Record(
        settings=settings, n_parameters=experiment.d, layers=opt.flat.sizes, rows=rows,
        layout=opt.driver.layout.name, traffic=opt.total_traffic(),
    )  # fmt: skip
