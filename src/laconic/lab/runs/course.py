"""What a simulated run measures on its way, and what is saved of that between two steps: a row after each epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from laconic.drivers.gathered import misfit
from laconic.lab.runs.accuracy import in_simulation
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.gradient_norms import GradientNorms
from laconic.lab.runs.record import Row
from laconic.lab.runs.rounds import RoundLog, RoundRow, Staleness
from laconic.training.simulation import Simulation


@dataclass(frozen=True, kw_only=True)
class StepOfRun:
    """Where a run is after a step."""

    step: int
    """The number of steps that are taken."""
    loss: float
    """Of the last step."""
    total: float
    """The sum of the losses of this epoch."""
    is_over: bool
    """Whether the last step of the run is taken."""


@dataclass(frozen=True)
class Seen:
    """What was measured after a step."""

    row: Row | None = None
    """After an epoch."""
    rounds: tuple[RoundRow, ...] = ()
    """After an epoch: its rounds."""
    look: Mapping[str, Any] | None = None
    """The totals of a run that is looked at every few steps."""


NOTHING = Seen()


class Course(Protocol):
    """Measures a simulation from step to step."""

    is_over: bool
    """Whether the run need not go on."""

    def before_step(self) -> None:
        """Measure before a step."""

    def after_step(self, at: StepOfRun) -> Seen:
        """Measure after a step."""

    def saved(self) -> dict[str, Any]:
        """Return what goes on, as plain data."""

    def restore(self, saved: object) -> None:
        """Go on from what `saved` returned. Raises ValueError for anything else."""


class EpochCourse:
    """Measures the model after each epoch, and collects the rounds."""

    is_over = False

    def __init__(self, experiment: Experiment, simulation: Simulation) -> None:
        """Observe a simulation from now on."""
        self._experiment, self._simulation = experiment, simulation
        self._round_log = RoundLog(
            simulation.driver.recorder, experiment.algorithm, rounds=experiment.rounds,
            steps_per_epoch=experiment.steps_per_epoch,
        )  # fmt: skip
        self._staleness, self._norms = Staleness(simulation.driver), GradientNorms(experiment)

    def before_step(self) -> None:
        """Measure the gradient, if the task does so."""
        self._norms.note_simulated()

    def after_step(self, at: StepOfRun) -> Seen:
        """Take up the step's round; after an epoch return its row and rounds."""
        seconds = self._simulation.driver.clock.now_ns / 1e9 or None
        self._round_log.end_step(at.step, at.loss, seconds, self._staleness)
        epoch, further = divmod(at.step, self._experiment.steps_per_epoch)
        if further:
            return NOTHING
        row = Row.of(
            epoch=epoch, loss=at.total / self._experiment.steps_per_epoch,
            accuracy=in_simulation(self._simulation, self._experiment), traffic=self._simulation.traffic,
            seconds=seconds, mean_squared_gradient=self._norms.end_epoch(),
        )  # fmt: skip
        return Seen(row, self._round_log.taken())

    def saved(self) -> dict[str, Any]:
        """Return what has been collected in this epoch."""
        return {
            "rounds": self._round_log.saved(), "staleness": self._staleness.saved(), "norms": self._norms.saved()
        }  # fmt: skip

    def restore(self, saved: object) -> None:
        """Go on in an epoch. Raises ValueError for what `saved` did not return."""
        schema = {"rounds": RoundLog.SCHEMA, "staleness": Staleness.SCHEMA, "norms": GradientNorms.SCHEMA}
        if problem := misfit(saved, schema, "its course"):
            raise ValueError(problem)
        assert isinstance(saved, dict)
        self._round_log.restore(saved["rounds"])
        self._staleness.restore(saved["staleness"])
        self._norms.restore(saved["norms"])
