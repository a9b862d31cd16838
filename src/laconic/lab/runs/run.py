"""Runs an experiment in the simulator, or as one rank of a process group."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.kernels.api import set_kernel_threads
from laconic.lab.runs.accounting import Accounting, sum_of
from laconic.lab.runs.accuracy import over_processes
from laconic.lab.runs.agreement import agree_on_data, refusals_of_command_shown
from laconic.lab.runs.course import Course, EpochCourse, Seen
from laconic.lab.runs.dense_sgd import DenseSGD
from laconic.lab.runs.device import device_of_rank, gpus_here, local_rank
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.gradient_norms import GradientNorms
from laconic.lab.runs.logged_run import LoggedRun, LogPlan, logged
from laconic.lab.runs.looks import LookCourse, LookPlan
from laconic.lab.runs.record import Record, Row
from laconic.lab.runs.rounds import RoundLog, RoundRow, of_all_ranks
from laconic.lab.runs.run_so_far import Listener, RunSoFar
from laconic.lab.runs.saved import Saving, gathered_seconds
from laconic.lab.runs.saved_checks import refusal, refused_as
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.times import PhaseTimes, Stopwatch
from laconic.statements import mark_stated
from laconic.telemetry.traffic import Traffic
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.second_gradient import called_twice
from laconic.training.simulation import Simulation

_MAX_SHARES = 100  # workers whose shares of the data a record has


class OtherClock(Protocol):
    """Times a simulated run on another network."""

    def watch(self, simulation: Simulation) -> None:
        """Time a simulation before its first round."""

    def saved(self) -> dict[str, Any]:
        """Return its state between two steps, as plain data."""

    def restore(self, saved: object) -> None:
        """Go on from what `saved` returned. Raises ValueError for anything else."""


def run_simulated(
    settings: RunSettings,
    listen: Listener,
    saving: Saving | None = None,
    logs: LogPlan | None = None,
    clocks: Mapping[str, OtherClock] | None = None,
) -> Record:
    """Run all workers in this process.

    Args:
        settings: The run.
        listen: Gets the progress after every step.
        saving: Where the run saves itself and goes on from; None for neither.
        logs: Where it logs; None for nowhere.
        clocks: By name, what times the run on other networks.

    Raises:
        OptionError: It cannot go on from what is saved there, or a log does not start.
    """
    with logged(logs) as log:
        done = _simulated(settings, listen, EpochCourse, saving, log, clocks or {})
    run, simulation = done.run, done.simulation
    return _record(
        done.experiment, run.rows, simulation.driver.layout.name, simulation.traffic, run.accounts.of_process()
    )


def look_at_simulated(
    settings: RunSettings, looks: LookPlan, listen: Listener, saving: Saving | None = None
) -> dict[str, Any]:
    """Run all workers in this process, and look at the run every few steps.

    Args:
        settings: The run.
        looks: When it is looked at, and when it need not go on.
        listen: Gets the progress after every step.
        saving: As of `run_simulated`.

    Returns:
        "looks", with totals over all workers since the start; "diverged", why the run diverged, or None;
        "parameters_hash", a number that differs where the last parameters do; "seconds" of this machine; "traffic".

    Raises:
        OptionError: It cannot go on from what is saved there.
    """
    done = _simulated(settings, listen, looks.course, saving, LoggedRun(None), {})
    assert isinstance(done.course, LookCourse)
    return done.course.figures(done.run.seconds)


@dataclass(frozen=True)
class _Simulated:
    """A simulated run at its end."""

    experiment: Experiment
    simulation: Simulation
    run: RunSoFar
    course: Course


def _simulated(
    settings: RunSettings, listen: Listener, course_of: Callable[[Experiment, Simulation], Course],
    saving: Saving | None, log: LoggedRun, clocks: Mapping[str, OtherClock],
) -> _Simulated:  # fmt: skip
    torch.set_num_threads(settings.threads)
    set_kernel_threads(settings.kernel_threads)
    experiment = Experiment(settings)
    experiment.move_to(device_of_rank(settings.device, 0, gpus_here()))
    saved = None if saving is None else saving.saved_run(experiment)
    simulation = _simulation_of(experiment)
    for clock in clocks.values():
        clock.watch(simulation)
    run = RunSoFar(experiment, saving, saved, listen, log)
    if saved is not None and saved.midway is not None and saving is not None:
        _restore_clocks(clocks, saved.midway["clocks"], saving.file)
    run.go_on(simulation)
    course = course_of(experiment, simulation)
    if saved is not None and saved.midway is not None and saving is not None:
        with refused_as(saving.file):
            course.restore(saved.midway["course"])
    lr_schedule = experiment.scheduler(run.step)
    for step in range(run.step, experiment.steps):
        course.before_step()
        down = simulation.down
        losses = simulation.step(lambda rank, step=step: experiment.loss(rank, step))  # type: ignore[misc]
        run.note_step(bool(simulation.training.n_taken))
        if run.is_over:
            simulation.exchange_steps()  # fewer than local_steps may be left
        lr_schedule.step()
        known = [loss for rank, loss in enumerate(losses) if rank not in down]
        run.note_loss(sum(known) / len(known) if known else run.loss)  # if all are down, the last loss counts again
        run.report(course.after_step(run.at))
        if course.is_over:
            break
        midway = None
        if run.has_to_save_midway and not simulation.training.n_taken:
            times = {name: clock.saved() for name, clock in clocks.items()}
            midway = {"course": course.saved(), "clocks": times}
        if midway or run.has_to_save:
            run.save(simulation.state_dict(), [asdict(run.accounts.of_process())], midway=midway)
    return _Simulated(experiment, simulation, run, course)


def _simulation_of(experiment: Experiment) -> Simulation:
    settings = experiment.settings
    mark_stated(called_twice(experiment.algorithm))  # the loss has no state of its own
    simulation = Simulation(
        experiment.model, experiment.inner, experiment.algorithm, workers=settings.workers, layout=experiment.layout,
        local_steps=settings.local_steps, seed=settings.seed, link=settings.link(), compute_s=settings.compute_s(),
        faults=settings.fault_plan, lr="kept", clients_per_round=settings.clients_per_round,
        side_by_side=settings.side_by_side or 1,
    )  # fmt: skip
    simulation.training.weights = experiment.weights()
    if not experiment.task.has_batches:
        simulation.accept_equal_gradients()
    return simulation


def _restore_clocks(clocks: Mapping[str, OtherClock], saved: Mapping[str, Any], file: Path) -> None:
    if clocks.keys() != saved.keys():
        raise refusal(file, "is of a run that other networks time")
    with refused_as(file):
        for name, clock in clocks.items():
            clock.restore(saved[name])


def run_as_rank(
    settings: RunSettings, listen: Listener, saving: Saving | None = None, logs: LogPlan | None = None
) -> Record:
    """Run as this rank of the default process group. Every rank must call it.

    Args:
        settings: The run.
        listen: Gets the progress of this rank after every step.
        saving: Where rank 0 saves the run, and goes on from; None for neither. The other ranks get it from rank 0.
        logs: Where rank 0 logs; None for nowhere.

    Raises:
        OptionError: It cannot go on from what is saved there, or a log does not start.
    """
    with logged(logs if dist.get_rank() == 0 else None) as log:
        return _run_as_rank(settings, listen, saving, log)


def _run_as_rank(settings: RunSettings, listen: Listener, saving: Saving | None, log: LoggedRun) -> Record:
    torch.set_num_threads(settings.threads)
    set_kernel_threads(settings.kernel_threads)
    rank = dist.get_rank()
    with refusals_of_command_shown():
        experiment = Experiment(settings)
        data = saving.read_checked(experiment) if saving is not None and rank == 0 else b""
        experiment.move_to(device_of_rank(settings.device, local_rank(rank, os.environ), gpus_here()))
    agree_on_data(experiment, settings.timeout_s)
    mark_stated(called_twice(experiment.algorithm))  # the loss has no state of its own
    opt = DistributedOptimizer(
        experiment.inner, experiment.algorithm, model=experiment.model, layout=experiment.layout,
        local_steps=settings.local_steps, seed=settings.seed, timeout_s=settings.timeout_s, lr="kept",
        buffers="local", clients_per_round=settings.clients_per_round,
    )  # fmt: skip
    opt.training.weights = experiment.weights()
    if not experiment.task.has_batches:
        opt.accept_equal_gradients()
    saved = None if saving is None else saving.shown_run(experiment, data, opt.driver.channel)
    run = RunSoFar(experiment, saving, saved, listen, log)
    run.go_on(opt)
    if saved is not None:
        opt.driver.seconds.go_on(saved.phases[rank])
    lr_schedule = experiment.scheduler(run.step)
    stopwatch = Stopwatch(opt) if settings.record_times else None
    norms = GradientNorms(experiment)
    round_log = RoundLog(
        opt.driver.recorder, experiment.algorithm, rounds=experiment.rounds, steps_per_epoch=experiment.steps_per_epoch
    )
    for step in range(run.step, experiment.steps):
        norms.note_of_rank(opt)
        loss = _take_step(opt, experiment, rank, step)
        run.note_step(bool(opt.training.n_taken))
        if run.is_over:
            opt.exchange_steps()  # fewer than local_steps may be left
        lr_schedule.step()
        run.note_loss(loss)
        round_log.end_step(run.step, loss, run.seconds)
        row: Row | None = None
        rounds: tuple[RoundRow, ...] = ()
        if run.ends_epoch:
            ended = time.perf_counter()
            with run.accounts.evaluation(opt.driver.channel):
                row = _row(opt, experiment, run, norms)
                rounds = of_all_ranks(opt.driver.channel, round_log.taken(), settings.takes_part)
            if stopwatch is not None:
                stopwatch.evaluated(ended)
        run.report(Seen(row, rounds))
        if run.has_to_save:
            accounts = run.accounts.gathered(opt.driver.channel)
            run.save(opt.gather_state(0), accounts, gathered_seconds(opt), writes=rank == 0)
    times = None if stopwatch is None else stopwatch.everybodys()
    accounting = sum_of(run.accounts.gathered(opt.driver.channel))
    return _record(experiment, run.rows, opt.driver.layout.name, opt.total_traffic(), accounting, times)


def _row(opt: DistributedOptimizer, experiment: Experiment, run: RunSoFar, norms: GradientNorms) -> Row:
    """Return the row of the epoch that has ended. Collective; only rank 0's has the accuracy."""
    losses = opt.driver.channel.gather(run.total, "for its loss", float, max_bytes=64)
    exchanged = opt.training.start  # the local steps since do not count, which the workers' parameters differ in
    return Row.of(
        epoch=len(run.rows) + 1, loss=sum(losses) / experiment.settings.takes_part / experiment.steps_per_epoch,
        accuracy=over_processes(opt, experiment, opt.flat.values() if exchanged is None else exchanged),
        traffic=opt.total_traffic(), seconds=run.seconds, mean_squared_gradient=norms.end_epoch(),
    )  # fmt: skip


def _take_step(opt: DistributedOptimizer, experiment: Experiment, rank: int, step: int) -> float:
    """Take one step of this rank and return its loss; 0 on a rank that only serves, or rests."""
    if opt.serves_only or opt.rests:
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
    accounting: Accounting,
    times: PhaseTimes | None = None,
) -> Record:
    settings, algorithm, rounds = experiment.settings, experiment.algorithm, range(traffic.rounds)
    shares = experiment.task.shares() if settings.workers <= _MAX_SHARES else ()
    return Record(
        settings=settings, spec=experiment.spec, rows=rows, layout=layout,
        traffic=traffic, times=times, accounting=accounting, guess=experiment.guess(), shares=shares,
        learning_rate=experiment.learning_rate if settings.lr == "theory" else None,
        start_gap=experiment.start_gap,
        dense_rounds=sum(map(algorithm.dense_in, rounds)), warm_up_rounds=sum(map(algorithm.warms_up_in, rounds)),
        dense_sgd=DenseSGD.of(
            spec=experiment.spec, workers=settings.takes_part, layout=settings.layout, steps=experiment.steps,
            local_steps=settings.local_steps,
        ),
    )  # fmt: skip
