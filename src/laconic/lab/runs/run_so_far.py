"""How far a run is: its steps, losses and rows, what a listener is told of them, and what is saved of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.lab.runs import saved as saved_runs
from laconic.lab.runs.accounting import Accounts
from laconic.lab.runs.course import NOTHING, Seen, StepOfRun
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.logged_run import LoggedRun
from laconic.lab.runs.record import Row
from laconic.lab.runs.rounds import RoundRow
from laconic.lab.runs.saved import SavedRun, Saving
from laconic.lab.runs.saved_checks import refused_as
from laconic.lab.runs.settings import RunSettings
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.simulation import Simulation


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run after a step, with a row after an epoch."""

    settings: RunSettings
    step: int
    steps: int
    loss: float
    row: Row | None = None
    rounds: tuple[RoundRow, ...] = ()
    """After an epoch: its rounds."""
    look: Mapping[str, Any] | None = None
    """Of a run that is looked at every few steps: its totals after such a step."""
    earlier: tuple[Row, ...] = ()
    """Before the first step of a run that goes on: the rows of the epochs that are done."""
    earlier_s: float = 0.0
    """Before the first step of a run that goes on: the seconds that it has taken until it was saved."""
    warning: str = ""
    """What has gone wrong, such as an epoch that could not be saved."""


Listener = Callable[[RunProgress], None]


class RunSoFar:
    """The steps, losses and rows of a run that goes on."""

    def __init__(
        self, experiment: Experiment, saving: Saving | None, saved: SavedRun | None, listen: Listener, logs: LoggedRun
    ) -> None:
        """Begin at step 0, or where the saved run ended.

        Args:
            experiment: The run.
            saving: Where it saves itself; None for nowhere.
            saved: What it goes on from, if it does.
            listen: Gets the progress.
            logs: Get every round and row.
        """
        self._experiment, self._saving, self._saved, self._listen = experiment, saving, saved, listen
        self._logs = logs
        self.rows: list[Row] = [] if saved is None else list(saved.rows)
        """One row per epoch."""
        midway = None if saved is None else saved.midway
        self.step: int = len(self.rows) * experiment.steps_per_epoch if midway is None else midway["step"]
        """Number of steps that are taken."""
        self.loss = 0.0 if saved is None else saved.loss
        """The loss of the last step."""
        self.total: float = 0.0 if midway is None else midway["total"]
        """The sum of the losses of this epoch."""
        self.accounts = Accounts(None)
        """What this process sends beside its later rounds."""
        self._start_s = time.perf_counter() - (0.0 if saved is None else saved.seconds)
        self._saved_s = time.perf_counter()  # when it was saved last
        self._has_local_steps = False
        own = None if saving is None else saving.every
        self._every = saved.every if own is None and saved is not None else own

    @property
    def seconds(self) -> float:
        """Wall seconds since the start, without the break of a run that goes on."""
        return time.perf_counter() - self._start_s

    @property
    def is_over(self) -> bool:
        """Whether the last step is taken."""
        return self.step == self._experiment.steps

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step of an epoch is taken."""
        return self.step % self._experiment.steps_per_epoch == 0

    @property
    def has_to_save(self) -> bool:
        """Whether the run is to be saved now, at the end of an epoch."""
        return bool(self._every and self.ends_epoch and (self.is_over or len(self.rows) % self._every == 0))

    @property
    def has_to_save_midway(self) -> bool:
        """Whether the run is to be saved now, wherever it is in an epoch."""
        every_s = None if self._saving is None else self._saving.every_s
        return every_s is not None and not self.is_over and time.perf_counter() - self._saved_s >= every_s

    @property
    def at(self) -> StepOfRun:
        """Where the run is."""
        return StepOfRun(step=self.step, loss=self.loss, total=self.total, is_over=self.is_over)

    def go_on(self, trained: Simulation | DistributedOptimizer) -> None:
        """Load what is saved, if the run goes on from it, and begin accounts and logs. Collective over processes.

        Raises:
            OptionError: It does not fit, or a log does not start, and nothing is trained.
        """
        self._trained = trained
        self._load_into(trained)
        rank = trained.driver.channel.rank if isinstance(trained, DistributedOptimizer) else 0
        self.accounts = Accounts(None if self._saved is None else self._saved.accounts[rank])
        self.accounts.begin(trained)
        self._logs.begin(trained, self._experiment.settings, self._complain)

    def _load_into(self, trained: Simulation | DistributedOptimizer) -> None:
        if self._saved is None or self._saving is None:
            return
        with refused_as(self._saving.file):
            self._experiment.model.load_state_dict(self._saved.model)
            trained.load_state_dict(dict(self._saved.optimizer))
            if self._saved.midway is None and trained.driver.rounds != self.rows[-1].round:
                raise ValueError(f"its state is of round {trained.driver.rounds}, its rows of {self.rows[-1].round}")
        settings, steps = self._experiment.settings, self._experiment.steps
        earlier_s = self._saved.seconds
        self._listen(RunProgress(settings, self.step, steps, self.loss, earlier=tuple(self.rows), earlier_s=earlier_s))

    def note_step(self, has_local_steps: bool) -> None:
        """Count a step. `has_local_steps`: whether local steps are not exchanged after it."""
        self.step += 1
        self.accounts.after_step(self._trained)
        self._has_local_steps = has_local_steps

    def note_loss(self, loss: float) -> None:
        """Add the loss of a step."""
        self.loss = loss
        self.total += loss

    def report(self, seen: Seen = NOTHING) -> None:
        """Report a step, and what was measured after it."""
        if seen.row is not None:
            self.rows.append(seen.row)
        if self.ends_epoch:
            self.total = 0.0
        settings, steps = self._experiment.settings, self._experiment.steps
        self._listen(RunProgress(settings, self.step, steps, self.loss, seen.row, seen.rounds, seen.look))
        self._logs.step(self.loss, seen.row)

    def save(
        self, optimizer: Mapping[str, Any], accounts: Sequence[dict[str, int]],
        phases: Sequence[dict[str, float]] = (), *, writes: bool = True, midway: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Save the run. A disk that is full does not end it.

        Args:
            optimizer: The state of the simulation, or that gathered from all ranks.
            accounts: By process, its accounts.
            phases: By rank, its seconds by phase.
            writes: Whether this rank writes the file.
            midway: What is measured on the way, of a run that is not saved after an epoch.
        """
        if not writes or self._saving is None:
            return
        self._saved_s = time.perf_counter()
        run = SavedRun(
            every=self._every or 1, rows=tuple(self.rows), loss=float(self.loss), seconds=self.seconds,
            phases=tuple(phases), accounts=tuple(accounts),
            has_early_exchange=self.is_over and self._has_local_steps, model=self._experiment.model.state_dict(),
            optimizer=optimizer,
            midway=None if midway is None else {"step": self.step, "total": float(self.total), **midway},
        )  # fmt: skip
        if warning := saved_runs.write(self._saving, self._experiment, run):
            self._complain(warning)

    def _complain(self, warning: str) -> None:
        self._listen(
            RunProgress(self._experiment.settings, self.step, self._experiment.steps, self.loss, warning=warning)
        )
