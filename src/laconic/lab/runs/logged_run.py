"""What a run logs while it goes on: every round, with its mean loss, and every epoch's row of `metrics.csv`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from laconic.lab.runs.record import Row
from laconic.lab.runs.settings import RunSettings
from laconic.telemetry.logs.kinds import check_kinds
from laconic.telemetry.logs.run_log import RunLog
from laconic.telemetry.recorder import RoundStats
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.simulation import Simulation


def check_logs(kinds: Sequence[str], out: Path | None) -> None:
    """Refuse logs that cannot be written. Raises OptionError as `check_kinds`."""
    check_kinds(kinds, out, folder_option="out")


@dataclass(frozen=True, kw_only=True)
class LogPlan:
    """Where a run logs."""

    kinds: tuple[str, ...]
    """Names of `LOG_KINDS`."""
    folder: Path | None = None
    """The run's folder."""
    name: str = ""
    """The run's name; by default its method and seed."""

    def within(self, folder: Path) -> "LogPlan":
        """Return the same logs of a run in this folder."""
        return replace(self, folder=folder.absolute())

    def of_run(self, settings: RunSettings, start: int, complain: Callable[[str], None]) -> RunLog:
        """Begin the logs of a run after `start` rounds. Raises OptionError as `RunLog`."""
        config = settings.as_data()
        flat = {**config, **{f"set.{name}": value for name, value in config.get("set", {}).items()}}
        flat.pop("set", None)
        return RunLog(
            *self.kinds, folder=self.folder, name=self.name or f"{settings.algorithm}, seed {settings.seed}",
            group=settings.title, config=flat, start=start, complain=complain,
        )  # fmt: skip


class LoggedRun:
    """The logs of one run; none without a plan."""

    def __init__(self, plan: LogPlan | None) -> None:
        """Begin nothing yet."""
        self._plan = plan
        self._log: RunLog | None = None
        self._rounds: list[RoundStats] = []  # since the last step's loss was known
        self._losses: list[float] = []  # of the steps since the last round

    def begin(
        self, trained: Simulation | DistributedOptimizer, settings: RunSettings, complain: Callable[[str], None]
    ) -> None:
        """Begin the logs, after the rounds that are done. Raises OptionError as `RunLog`."""
        if self._plan is not None and self._plan.kinds:
            self._log = self._plan.of_run(settings, trained.driver.rounds, complain)
            trained.driver.recorder.observe(self._rounds.append)

    def step(self, loss: float, row: Row | None) -> None:
        """Log the rounds of a step, and after an epoch its row.

        Args:
            loss: The step's loss.
            row: The row, whose names are those of `metrics.csv`.
        """
        if self._log is None:
            return
        self._losses.append(loss)
        for stats in self._rounds:
            mean = sum(self._losses) / len(self._losses)
            self._log.log({**stats.values(), "round/train_loss": mean}, stats.round + 1)
        if self._rounds:
            self._rounds.clear()
            self._losses.clear()
        if row is not None:
            values = {f"epoch/{name}": value for name, value in asdict(row).items() if value is not None}
            values["epoch"] = values.pop("epoch/epoch")
            del values["epoch/round"]  # the step
            self._log.log(values, row.round)

    def finish(self) -> None:
        """End the logs, also of a run that failed."""
        if self._log is not None:
            self._log.finish()


@contextmanager
def logged(plan: LogPlan | None) -> Iterator[LoggedRun]:
    """Return the logs of a run, which end with the block."""
    run = LoggedRun(plan)
    try:
        yield run
    finally:
        run.finish()
