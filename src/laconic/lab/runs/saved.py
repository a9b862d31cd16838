"""A run that saves itself, and goes on from there: `checkpoint.pt` in its folder, after some of its epochs.

A cell of a comparison saves itself between two steps, in `midway.pt`, which goes when the cell is finished.

The file holds all that a run needs to end with the bits of a run without a break: the model, the state of all workers
and servers, the rows so far. It belongs to one set of settings, files and data. It is read as input from anywhere: no
code in it is run, and every part is checked before anything changes.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import reduce
from hashlib import blake2b
from operator import or_
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.state_exchange import show
from laconic.drivers.gathered import misfit
from laconic.errors import Named, OptionError
from laconic.lab.atomic import write_bytes
from laconic.lab.models import WITH_BATCH_NORM
from laconic.lab.own_results import SAVED_RUN_BEGINS
from laconic.lab.runs.accounting import ACCOUNTING
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.record import Row
from laconic.lab.runs.saved_checks import (
    check_epochs,
    check_groups,
    check_model,
    check_settings,
    check_versions,
    identity_of,
    library_versions,
    made_by,
    refusal,
    refused_as,
    warn_of_other_versions,
)
from laconic.lab.runs.settings import RunSettings
from laconic.telemetry.phases import Seconds
from laconic.training.distributed_optimizer import DistributedOptimizer

_PURPOSE = "for its saved run"
_DIGEST_BYTES = 32
_NUMBER = range(1 << 62)


def _schema_of(kind: Any) -> Any:  # noqa: ANN401 - a type or a union of types
    """Return what a value of a row's column must be: a number may be whole where any is allowed."""
    kinds = {*(get_args(kind) or (kind,))}
    return _NUMBER if kinds == {int} else reduce(or_, kinds | ({int} if float in kinds else set()))


ROW = {column.name: _schema_of(column.type) for column in fields(Row)}
"""What a row in a saved run must be."""
_SECONDS = dict.fromkeys(Seconds().sums(), float)
_MIDWAY = {"step": range(1, 1 << 62), "total": float}
_STATE = {
    "every": range(1, 1 << 62), "rows": [ROW], "loss": float, "seconds": float, "phases": [_SECONDS],
    "has_early_exchange": bool, "accounts": [ACCOUNTING],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where a run saves itself, after every how many epochs, and whether it goes on from there."""

    file: Path
    every: int | None = None
    """None as often as the run that is continued."""
    every_s: float | None = None
    """In place of epochs: the seconds after which the next step's end is saved."""
    resume: bool = False
    plugins: tuple[str, ...] = ()
    """Files with algorithms."""

    def read_checked(self, experiment: Experiment) -> bytes:
        """Return what is in the file that the run is to go on from; nothing if it begins anew.

        Raises as `read` and `check_buffers`.
        """
        check_buffers(self, experiment)
        data = read_bytes(self.file) if self.resume else None
        if data is None:
            return b""
        read(data, self, experiment)
        return data

    def saved_run(self, experiment: Experiment) -> "SavedRun | None":
        """Return the saved run that the run is to go on from; None if it begins anew. Raises as `read`."""
        data = read_bytes(self.file) if self.resume else None
        return None if data is None else read(data, self, experiment)

    def shown_run(self, experiment: Experiment, data: bytes, channel: Channel) -> "SavedRun | None":
        """Return the saved run that rank 0 has read, on every rank; None if there is none. Collective.

        Args:
            experiment: The run.
            data: What rank 0 has read from the file.
            channel: The connection to the other ranks.

        Raises:
            OptionError: It does not fit.
            PeerLostError: A rank is missing.
        """
        if not self.resume:
            return None
        n_bytes = channel.gather(len(data), _PURPOSE, _NUMBER, max_bytes=64)[0]
        if not n_bytes:
            return None
        shown = show(channel, data if channel.rank == 0 else None, 0, n_bytes, _PURPOSE)
        run = read(shown, self, experiment, compares=channel.rank == 0)
        if {len(run.phases), len(run.accounts)} != {channel.size}:
            raise refusal(self.file, f"is of {len(run.phases)} ranks, and here are {channel.size}")
        return run


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """What a run has saved of itself after an epoch."""

    every: int
    """Epochs between two saves."""
    rows: tuple[Row, ...]
    """One row per epoch."""
    loss: float
    """The mean loss of the last step."""
    seconds: float
    """Seconds since the start, over processes."""
    phases: tuple[dict[str, float], ...]
    """By rank, its seconds by phase, over processes."""
    accounts: tuple[dict[str, int], ...]
    """By process, what it has sent beside its later rounds."""
    has_early_exchange: bool
    """Whether the run has ended with an exchange after fewer than its local steps."""
    model: Mapping[str, Tensor]
    """The model's own state."""
    optimizer: Mapping[str, Any]
    """The inner optimizer's state, with that of the method."""
    midway: Mapping[str, Any] | None = None
    """Between two epochs: "step", the steps that are taken, "total", the sum of this epoch's losses, "course", what is
    measured on the way, and "clocks", by name, the other networks that time the run."""

    @property
    def epochs(self) -> int:
        """Number of epochs that are done."""
        return len(self.rows)

    @property
    def reached(self) -> str:
        """How far it is, in words."""
        return f"epoch {self.epochs}" if self.midway is None else f"step {self.midway['step']}"


def check_saving(settings: RunSettings) -> None:
    """Refuse to save a run that could not go on with the same bits.

    Raises:
        OptionError: Its method or an option has no such state.
    """
    method, name = settings.method, settings.algorithm
    wanted, remedy = Named("save_every"), "; leave it out"
    if settings.record_times:
        raise OptionError(wanted, " does not go with ", Named("record_times", True), ": times are recorded in one go")
    if settings.model in WITH_BATCH_NORM and settings.driver == "processes":
        raise _of_one_model(settings)
    if method.is_asynchronous and settings.driver == "processes":
        raise OptionError(
            wanted, f": {name} over processes cannot go on with the same figures, since the order in which gradients "
            f"come is open{remedy}, or take ", Named("driver", "simulated"),
        )  # fmt: skip
    if method.is_asynchronous and method.takes_gradient_tensors:
        raise OptionError(wanted, f": {name} cannot save gradients that are on their way{remedy}")


def check_buffers(saving: Saving, experiment: Experiment) -> None:
    """Refuse to save a user's own model with buffers over processes, as `check_saving` does those by name.

    Raises:
        OptionError: It has some.
    """
    settings = experiment.settings
    if saving.every is not None and settings.driver == "processes" and list(experiment.model.buffers()):
        raise _of_one_model(settings)


def _of_one_model(settings: RunSettings) -> OptionError:
    return OptionError(
        Named("save_every"), f": {settings.model} over processes cannot go on with the same figures, since each rank "
        "has batch-norm statistics of its own; leave it out, or take ", Named("driver", "simulated"),
    )  # fmt: skip


def gathered_seconds(opt: DistributedOptimizer) -> list[dict[str, float]]:
    """Return each rank's seconds by phase, on every rank. Collective."""
    gathered: list[dict[str, float]] = opt.driver.channel.gather(
        opt.driver.seconds.sums(), _PURPOSE, _SECONDS, max_bytes=400
    )
    return gathered


def write(saving: Saving, experiment: Experiment, run: SavedRun) -> str:
    """Replace the file as a whole. Returns why it could not be written; empty if it is written."""
    content = {
        "made by": made_by(), "versions": library_versions(), "settings": identity_of(experiment, saving.plugins),
        "epochs": experiment.settings.epochs,
        "state": {
            "every": run.every, "rows": [asdict(row) for row in run.rows], "loss": run.loss, "seconds": run.seconds,
            "phases": list(run.phases), "has_early_exchange": run.has_early_exchange,
            "accounts": list(run.accounts),
        },
        "model": dict(run.model), "optimizer": dict(run.optimizer),
    } | ({} if run.midway is None else {"midway": dict(run.midway)})  # fmt: skip
    data = io.BytesIO()
    torch.save(content, data)
    digest = blake2b(data.getbuffer(), digest_size=_DIGEST_BYTES).digest()
    try:
        for part in saving.file.parent.glob(f".{saving.file.name}.*.part"):
            part.unlink()  # of a process that was killed while it wrote; nobody else uses the folder
        write_bytes(saving.file, b"".join((SAVED_RUN_BEGINS, digest, data.getbuffer())))
    except OSError as error:
        return f"{error.filename}: {error.strerror}; the run goes on, but {run.reached} is not saved"
    return ""


def read_bytes(file: Path) -> bytes | None:
    """Return what is in a file; None if it is not there. Raises OptionError if it cannot be read."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(file, f"cannot be read: {error.strerror}") from None


def read(data: bytes, saving: Saving, experiment: Experiment, *, compares: bool = True) -> SavedRun:
    """Return the saved run in the bytes of a file.

    Args:
        data: The bytes.
        saving: Where they are from.
        experiment: The run that is to go on.
        compares: Whether settings are compared. Ranks may differ in those that each has for itself.

    Raises:
        OptionError: They are damaged or no saved run, or of a run with other versions, settings or data. It names the
            first difference, with both values.
    """
    content = _content(data, saving.file, experiment.device)
    with refused_as(saving.file):
        check_versions(content, saving.file)
        if compares:
            check_settings(content["settings"], identity_of(experiment, saving.plugins), saving.file)
        state = content["state"]
        problem = misfit(state, _STATE, "its state")
        if problem:
            raise ValueError(problem)
        rows, midway = tuple(Row(**row) for row in state["rows"]), _midway(content)
        if [row.epoch for row in rows] != list(range(1, len(rows) + 1)) or not (rows or midway):
            raise ValueError("its rows are not those of the epochs 1, 2, ...")
        run = SavedRun(
            every=state["every"], rows=rows, loss=state["loss"], seconds=state["seconds"],
            phases=tuple(state["phases"]), has_early_exchange=state["has_early_exchange"], model=content["model"],
            optimizer=content["optimizer"], accounts=tuple(state["accounts"]), midway=midway,
        )  # fmt: skip
        if not run.accounts:
            raise ValueError("it has no accounts")
        if midway is not None:
            _check_step(midway["step"], rows, experiment)
        if not all(
            0 <= each < math.inf for each in (run.seconds, *(s for of_rank in run.phases for s in of_rank.values()))
        ):
            raise ValueError("its seconds are below 0 or not finite")
        check_epochs(
            content["epochs"], run.epochs, experiment.settings, saving.file, has_early_exchange=run.has_early_exchange
        )
        check_model(run.model, experiment.model)
        check_groups(run.optimizer, experiment.inner)
    warn_of_other_versions(content["versions"], saving.file)
    return run


def _midway(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what is saved between two epochs. Raises ValueError if it is not what `write` was given."""
    midway = content.get("midway")
    if midway is None:
        return None
    parts = {name: midway.get(name) for name in _MIDWAY}
    if problem := misfit(parts, _MIDWAY, "what it has between two epochs"):
        raise ValueError(problem)
    return {**parts, "course": midway["course"], "clocks": dict(midway["clocks"])}


def _check_step(step: int, rows: Sequence[Row], experiment: Experiment) -> None:
    """Raise ValueError for a step that is no step of the run, or none behind the epochs of these rows."""
    epoch = step // experiment.steps_per_epoch
    if step >= experiment.steps or (rows and epoch != len(rows)):
        raise ValueError(f"it is at step {step} of {experiment.steps}, with the rows of {len(rows)} epochs")


def _content(data: bytes, file: Path, device: torch.device) -> dict[str, Any]:
    start = len(SAVED_RUN_BEGINS) + _DIGEST_BYTES
    if not data.startswith(SAVED_RUN_BEGINS):
        raise refusal(file, "is no saved run of laconic; remove it, or give another folder")
    if blake2b(data[start:], digest_size=_DIGEST_BYTES).digest() != data[len(SAVED_RUN_BEGINS) : start]:
        raise refusal(file, "is damaged: its bytes are not those that were written")

    def here(storage: Any, location: str) -> Any:  # noqa: ANN401 - torch names its class in several ways
        # What was on the CPU stays there. What was on a GPU comes to this process's own device.
        return storage if location == "cpu" or device.type == "cpu" else storage.cuda(device.index)

    try:
        content = torch.load(io.BytesIO(data[start:]), weights_only=True, map_location=here)
    except Exception as error:  # torch raises many kinds
        raise refusal(
            file, f"cannot be read: it holds more than tensors and plain data ({type(error).__name__})"
        ) from None
    names = ("made by", "versions", "settings", "epochs", "state", "model", "optimizer")
    if not isinstance(content, dict) or any(name not in content for name in names):
        raise refusal(file, "is not complete")
    return content
