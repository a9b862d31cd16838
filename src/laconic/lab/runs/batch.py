"""The runs of one command, one after the other: none that is finished is lost, whatever happens to the others."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path

from laconic.errors import LaconicError, Named, OptionError
from laconic.lab.outputs import OutputFolder
from laconic.lab.own_results import is_comparison, run_folders
from laconic.lab.processes.place import described, place_of
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.files import RunFiles, read_record
from laconic.lab.runs.launch import run_in_processes
from laconic.lab.runs.logged_run import LogPlan
from laconic.lab.runs.record import Record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.run_so_far import Listener, RunProgress
from laconic.lab.runs.saved import Saving, check_saving
from laconic.lab.runs.settings import RunSettings
from laconic.statements import LaconicWarning, warn


class Batch:
    """The runs of one command. Each is written while it goes on, and kept when it is finished."""

    def __init__(
        self,
        plans: Sequence[RunSettings],
        out: OutputFolder | None = None,
        *,
        in_folders: bool = False,
        resume: bool = False,
        savings: Mapping[str, Saving] | None = None,
        logs: Mapping[str, LogPlan] | None = None,
    ) -> None:
        """Take up what is finished.

        Args:
            plans: The runs, in order, each of another method.
            out: The folder for all files; None writes none.
            in_folders: Whether each run has a folder of its own in it, named by its method.
            resume: Whether finished runs in the folder are taken up.
            savings: By method, where its run saves itself and goes on from.
            logs: By method, where its run logs.

        Raises:
            OptionError: A folder is in use, or holds a run with other settings; or a run cannot save itself.
        """
        self.savings = savings or {}
        """By method, where its run saves itself and goes on from."""
        self.logs = logs or {}
        """By method, where its run logs."""
        for plan in plans:
            if plan.algorithm in self.savings and self.savings[plan.algorithm].every is not None:
                check_saving(plan)
        self._plans = {plan.algorithm: plan for plan in plans}
        self.in_folders = in_folders
        """Whether each run has a folder of its own."""
        self.failures: dict[str, Exception | SystemExit] = {}
        """What ended a run, by method."""
        self.unwritten: dict[str, OSError] = {}
        """Why a finished run could not be written, by method."""
        self._out, self._resume = out, resume
        self._found: dict[str, Record] = {}
        self._epochs: dict[str, int] = {}  # of runs that have begun
        self._files: dict[str, RunFiles] = {}
        if out is not None:
            if resume:
                _refuse_other_runs(out.path, {plan.algorithm for plan in plans} if in_folders else set())
            folders = {plan.algorithm: out.inner(plan.algorithm).path if in_folders else out.path for plan in plans}
            self._files = {name: RunFiles(folders[name], plan) for name, plan in self._plans.items()}
            if resume:
                records = {name: read_record(folder, self._plans[name]) for name, folder in folders.items()}
                self._found = {name: record for name, record in records.items() if record is not None}
        self.taken_up = list(self._found)
        """The methods whose finished runs were taken up."""

    @property
    def records(self) -> list[Record]:
        """The finished runs, in the order of the plans."""
        return [self._found[name] for name in self._plans if name in self._found]

    @property
    def left(self) -> list[RunSettings]:
        """The runs that are neither finished nor failed."""
        return [plan for name, plan in self._plans.items() if name not in self._found and name not in self.failures]

    @property
    def begun_anew(self) -> list[str]:
        """The methods whose runs are to go on, but have saved nothing."""
        savings = [(plan.algorithm, self.savings.get(plan.algorithm)) for plan in self.left]
        return [name for name, saving in savings if saving and saving.resume and not saving.file.exists()]

    @property
    def is_written(self) -> bool:
        """Whether files are written."""
        return bool(self._files)

    def run(self, listen: Listener, *, port: int = 0, plugins: Sequence[str] = ()) -> None:
        """Run what is left on its driver. A run that fails does not end the others.

        Args:
            listen: Gets the progress of each run.
            port: The port at which processes meet on this machine; 0 takes a free one.
            plugins: Files with algorithms, which each process loads.

        Raises:
            OptionError: Nothing has begun, since an option is wrong.
            ValueError: Data or sizes do not fit, and nothing has begun.
        """
        plans = self.left
        if len(plans) > 1 and plans[0].driver == "simulated":
            for plan in plans:
                experiment = Experiment(plan)  # refuses wrong data and sizes, and warns, before the first run begins
                if saving := self.savings.get(plan.algorithm):
                    saving.read_checked(experiment)
        listen = self.listener(listen)
        while plans := self.left:
            if plans[0].driver == "processes":
                together = list(takewhile(lambda plan, n=plans[0].n_processes: plan.n_processes == n, plans))  # type: ignore[misc]
                work: Callable[[], object] = partial(
                    run_in_processes, together, listen, port=port, plugins=plugins, finished=self.finish,
                    savings=self.savings, logs=self.logs,
                )  # fmt: skip
            else:
                work = partial(self._run_simulated, plans[0], listen)
            self._guarded(work)

    def _run_simulated(self, plan: RunSettings, listen: Listener) -> None:
        name = plan.algorithm
        self.finish(run_simulated(plan, listen, self.savings.get(name), self.logs.get(name)))

    def _guarded(self, work: Callable[[], object]) -> None:
        """Do the work of the first run that is left. If it fails, keep why."""
        try:
            work()
        except (Exception, SystemExit) as error:
            if isinstance(error, ValueError) and not place_of(error) and not self._epochs and not self._found:
                raise  # a mistake of the user's, seen before anything has begun
            self.fail(error)

    def fail(self, error: Exception | SystemExit) -> None:
        """Keep why the first run that is left has ended."""
        if not self.left:
            raise error
        self.failures[self.left[0].algorithm] = error

    def listener(self, listen: Listener) -> Listener:
        """Return a listener that writes each epoch, and tells `listen`."""

        def write_and_tell(progress: RunProgress) -> None:
            name = progress.settings.algorithm
            if not self._epochs and self._out is not None and not self._resume:
                self._out.clear(
                    keeps_logs=bool(self.logs)
                )  # only now, when options and data are right and the first step is taken
            if name not in self._epochs:
                self._epochs[name] = len(progress.earlier)
                self._try(name, lambda files: files.begin(progress.earlier))
            if progress.row is not None:
                row = progress.row
                self._epochs[name] = row.epoch
                self._try(name, lambda files: files.add(row, progress.rounds))
            if progress.warning:
                warn(progress.warning)
            listen(progress)

        return write_and_tell

    def _try(self, name: str, write: Callable[[RunFiles], None]) -> None:
        """Write to a run's files. A disk that is full does not end the run, which writes all again at its end."""
        if name in self._files:
            try:
                write(self._files[name])
            except OSError as error:
                with suppress(LaconicWarning):  # a warning that is an error here would cost the run
                    warn(
                        f"{error.filename}: {error.strerror}; the run goes on, and its files are written again at its "
                        "end"
                    )

    def finish(self, record: Record) -> None:
        """Keep a finished run, on disk if there is a folder."""
        name = record.settings.algorithm
        self._found[name] = record
        if name in self._files:
            try:
                self._files[name].finish(record)
            except OSError as error:
                self.unwritten[name] = error

    def finish_writing(self) -> None:
        """Write finished runs whose write a signal has interrupted."""
        for name, files in self._files.items():
            if name in self._found and name not in self.unwritten and not (files.folder / "summary.json").exists():
                self.finish(self._found[name])

    def state(self) -> list[str]:
        """Return what is finished and where it is, and what is not, in clauses of one line."""
        finished = [name for name in self._plans if name in self._found]
        missing = [name for name in self._plans if name not in self._found]
        clauses = []
        if finished:
            clauses.append(f"finished: {', '.join(map(self.where, finished))}")
        if missing:
            clauses.append(f"not finished: {', '.join(map(self.how_far, missing))}")
        return clauses

    def where(self, name: str) -> str:
        """Return a finished run's method and folder."""
        if name not in self._files:
            return name
        return (
            f"{name}, which could not be written" if name in self.unwritten else f"{name} in {self._files[name].folder}"
        )

    def how_far(self, name: str) -> str:
        """Return an unfinished run's method, and how many of its epochs are in which file."""
        epochs = self._epochs.get(name, 0)
        if not epochs:
            return name
        written = f" in {self._files[name].metrics}" if name in self._files else ""
        return f"{name} ({epochs} of {self._plans[name].epochs} epochs{written})"


def _refuse_other_runs(folder: Path, names: set[str]) -> None:
    """Refuse to continue in a folder whose runs are not those of the command.

    Args:
        folder: The folder.
        names: The folders of runs that may be in it; empty if it is itself the folder of a run.
    """
    others = [one.name for one in run_folders(folder) if one.name not in names]
    if is_comparison(folder):
        what = "holds a comparison over seeds, networks or partitions; "
    elif names and (folder / "config.toml").is_file():
        what = "holds one run and no comparison; "
    elif others and not names:
        what = f"holds a comparison ({', '.join(others)}) and not one run; "
    elif others:
        what = f"also holds {', '.join(others)}, which is not named here; name it too, "
    else:
        return
    raise OptionError(
        Named("resume", True), f": {folder} {what}give another folder, or ", Named("overwrite", True),
        " to begin anew",
    )  # fmt: skip


class RunError(LaconicError, RuntimeError):
    """A run failed; the message names its method and the reason."""


def reason_of(error: BaseException) -> BaseException:
    """Return an error whose text a user can act on: with its class and place where it is not one of laconic's."""
    if isinstance(error, LaconicError) or (isinstance(error, ValueError | OSError) and not place_of(error)):
        return error
    return RunError(described(error))
