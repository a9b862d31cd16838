"""A run that saves itself after some of its epochs, and goes on from there: `checkpoint.pt` in its folder.

The file holds all that a run needs to end with the bits of a run without a break: the model, the state of all workers
and servers, the rows so far. It belongs to one set of settings, files and data. It is read as input from anywhere: no
code in it is run, and every part is checked before anything changes.
"""

import io
import math
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import reduce
from hashlib import blake2b
from operator import or_
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from laconic.drivers.distributed.agreement import versions as fixed_versions
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.state_exchange import show
from laconic.drivers.gathered import misfit
from laconic.errors import Named, OptionError
from laconic.lab.atomic import write_bytes
from laconic.lab.provenance import versions
from laconic.lab.runs.agreement import described_data, described_files
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.record import Row
from laconic.lab.runs.settings import RunSettings
from laconic.statements import warn
from laconic.telemetry.phases import Seconds
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.state_dict import VERSION as STATE_VERSION

_PURPOSE = "for its saved run"
_MAGIC = b"laconic run\n"
_DIGEST_BYTES = 32
_FORM = 1  # of this file
_NUMBER = range(1 << 62)
_SCALAR = str | int | float | bool | None


def _schema_of(kind: Any) -> Any:  # noqa: ANN401 - a type or a union of types
    """Return what a value of a row's column must be: a number may be whole where any is allowed."""
    kinds = {*(get_args(kind) or (kind,))}
    return _NUMBER if kinds == {int} else reduce(or_, kinds | ({int} if float in kinds else set()))


_ROW = {column.name: _schema_of(column.type) for column in fields(Row)}
_SECONDS = dict.fromkeys(Seconds().sums(), float)
_STATE = {
    "every": range(1, 1 << 62), "rows": [_ROW], "loss": float, "seconds": float, "phases": [_SECONDS],
    "has_early_exchange": bool,
}  # fmt: skip
_FREE = ("epochs", "timeout_s", "data", "faults")
"""Settings that need not be equal: `_check_epochs` looks at the epochs, the data and faults are compared themselves,
and how long a rank is waited for changes no figure."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where a run saves itself, after every how many epochs, and whether it goes on from there."""

    file: Path
    every: int | None = None
    """None as often as the run that is continued."""
    resume: bool = False
    plugins: tuple[str, ...] = ()
    """Files with algorithms."""

    def read_checked(self, experiment: Experiment) -> bytes:
        """Return what is in the file that the run is to go on from; nothing if it begins anew. Raises as `read`."""
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
        if len(run.phases) != channel.size:
            raise _refusal(self.file, f"is of {len(run.phases)} ranks, and here are {channel.size}")
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
    has_early_exchange: bool
    """Whether the run has ended with an exchange after fewer than its local steps."""
    model: Mapping[str, Tensor]
    """The model's own state."""
    optimizer: Mapping[str, Any]
    """The inner optimizer's state, with that of the method."""

    @property
    def epochs(self) -> int:
        """Number of epochs that are done."""
        return len(self.rows)


def check_saving(settings: RunSettings) -> None:
    """Refuse to save a run that could not go on with the same bits.

    Raises:
        OptionError: Its method or an option has no such state.
    """
    method, name = settings.method, settings.algorithm
    wanted, remedy = Named("save_every"), "; leave it out"
    if settings.record_times:
        raise OptionError(wanted, " does not go with ", Named("record_times", True), ": times are recorded in one go")
    if method.is_asynchronous and settings.driver == "processes":
        raise OptionError(
            wanted, f": {name} over processes cannot go on with the same figures, since the order in which gradients "
            f"come is open{remedy}, or take ", Named("driver", "simulated"),
        )  # fmt: skip
    if method.is_asynchronous and method.takes_gradient_tensors:
        raise OptionError(wanted, f": {name} cannot save gradients that are on their way{remedy}")


def identity_of(experiment: Experiment, plugins: tuple[str, ...]) -> dict[str, Any]:
    """Return all that must be equal when a run goes on: options, data, faults, and files of methods."""
    settings = experiment.settings
    found: dict[str, Any] = {}
    for name, value in settings.as_data().items():
        if name == "set":
            found |= {f"set {key}": text for key, text in value.items()}
        elif name not in _FREE:
            found[name] = value
    plan = {} if settings.fault_plan is None else tomllib.loads(settings.fault_plan.to_toml())
    found |= {f"faults {name}": value if isinstance(value, _SCALAR) else repr(value) for name, value in plan.items()}
    found |= {name: value for name, value in described_data(experiment).items() if name not in found}
    return found | described_files(plugins)


def gathered_seconds(opt: DistributedOptimizer) -> list[dict[str, float]]:
    """Return each rank's seconds by phase, on every rank. Collective."""
    gathered: list[dict[str, float]] = opt.driver.channel.gather(
        opt.driver.seconds.sums(), _PURPOSE, _SECONDS, max_bytes=400
    )
    return gathered


def _versions() -> dict[str, str]:
    return {name: str(version) for name, version in versions().items()}  # torch's is a class of its own


def _made_by() -> dict[str, str]:
    """Return the versions that the content of a file depends on."""
    return {**fixed_versions(), "form of the file": str(_FORM), "saved state": str(STATE_VERSION)}


def write(saving: Saving, experiment: Experiment, run: SavedRun) -> str:
    """Replace the file as a whole. Returns why it could not be written; empty if it is written."""
    content = {
        "made by": _made_by(), "versions": _versions(), "settings": identity_of(experiment, saving.plugins),
        "epochs": experiment.settings.epochs,
        "state": {
            "every": run.every, "rows": [asdict(row) for row in run.rows], "loss": run.loss, "seconds": run.seconds,
            "phases": list(run.phases), "has_early_exchange": run.has_early_exchange,
        },
        "model": dict(run.model), "optimizer": dict(run.optimizer),
    }  # fmt: skip
    data = io.BytesIO()
    torch.save(content, data)
    digest = blake2b(data.getbuffer(), digest_size=_DIGEST_BYTES).digest()
    try:
        for part in saving.file.parent.glob(f".{saving.file.name}.*.part"):
            part.unlink()  # of a process that was killed while it wrote; nobody else uses the folder
        write_bytes(saving.file, b"".join((_MAGIC, digest, data.getbuffer())))
    except OSError as error:
        return f"{error.filename}: {error.strerror}; the run goes on, but epoch {run.epochs} is not saved"
    return ""


def read_bytes(file: Path) -> bytes | None:
    """Return what is in a file; None if it is not there. Raises OptionError if it cannot be read."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refusal(file, f"cannot be read: {error.strerror}") from None


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
    content = _content(data, saving.file)
    with refused_as(saving.file):
        _check_versions(content, saving.file)
        if compares:
            _check_settings(content["settings"], identity_of(experiment, saving.plugins), saving.file)
        state = content["state"]
        problem = misfit(state, _STATE, "its state")
        if problem:
            raise ValueError(problem)
        rows = tuple(Row(**row) for row in state["rows"])
        if [row.epoch for row in rows] != list(range(1, len(rows) + 1)) or not rows:
            raise ValueError("its rows are not those of the epochs 1, 2, ...")
        run = SavedRun(
            every=state["every"], rows=rows, loss=state["loss"], seconds=state["seconds"],
            phases=tuple(state["phases"]), has_early_exchange=state["has_early_exchange"], model=content["model"],
            optimizer=content["optimizer"],
        )  # fmt: skip
        if not all(
            0 <= each < math.inf for each in (run.seconds, *(s for of_rank in run.phases for s in of_rank.values()))
        ):
            raise ValueError("its seconds are below 0 or not finite")
        _check_epochs(content["epochs"], run, experiment.settings, saving.file)
        _check_model(run.model, experiment.model)
        _check_groups(run.optimizer, experiment.inner)
    _warn_of_other_versions(content["versions"], saving.file)
    return run


def _content(data: bytes, file: Path) -> dict[str, Any]:
    start = len(_MAGIC) + _DIGEST_BYTES
    if not data.startswith(_MAGIC):
        raise _refusal(file, "is no saved run of laconic; remove it, or give another folder")
    if blake2b(data[start:], digest_size=_DIGEST_BYTES).digest() != data[len(_MAGIC) : start]:
        raise _refusal(file, "is damaged: its bytes are not those that were written")
    try:
        content = torch.load(io.BytesIO(data[start:]), weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise _refusal(
            file, f"cannot be read: it holds more than tensors and plain data ({type(error).__name__})"
        ) from None
    names = ("made by", "versions", "settings", "epochs", "state", "model", "optimizer")
    if not isinstance(content, dict) or any(name not in content for name in names):
        raise _refusal(file, "is not complete")
    return content


def _check_versions(content: Mapping[str, Any], file: Path) -> None:
    for name, now in _made_by().items():
        before = content["made by"].get(name)
        if type(before) is not type(now) or before != now:
            what = name if name == "laconic" else f"the {name}"
            raise _refusal(
                file, f"was made with version {before!r:.40} of {what}, and this is {now!r}; go on with the version "
                "that made it, or begin anew",
            )  # fmt: skip


def _check_settings(before: Any, now: Mapping[str, Any], file: Path) -> None:  # noqa: ANN401 - from a file
    problem = misfit(before, {str: _SCALAR}, "its settings")
    if problem:
        raise ValueError(problem)
    for name in [*now, *(name for name in before if name not in now)]:
        values = [each.get(name) for each in (before, now)]
        if values[0] != values[1] or isinstance(values[0], bool) != isinstance(values[1], bool):
            shown = ["not set" if value is None else f"{value!r:.60}" for value in values]
            raise _refusal(
                file, f"is of a run with another {name}: {shown[0]} there, {shown[1]} now; give what it was made with, "
                "or begin anew in another folder",
            )  # fmt: skip


def _check_epochs(before: object, run: SavedRun, settings: RunSettings, file: Path) -> None:
    """Refuse another number of epochs where an uninterrupted run of so many would have begun otherwise."""
    now = settings.epochs
    if type(before) is not int or not run.epochs <= before:
        raise ValueError(f"it has {run.epochs} epochs of {before!r:.40}")
    if now == before:
        return
    both = f"is of a run with epochs {before}, and now they are {now}"
    if now < before:
        raise _refusal(file, f"{both}; a run can go on for more epochs, but not for fewer")
    if settings.lr_schedule != "constant":
        raise _refusal(
            file, f"{both}: with the {settings.lr_schedule} schedule more epochs change the learning rates of "
            "those that are done; give the same epochs, or begin anew",
        )  # fmt: skip
    if run.has_early_exchange:
        raise _refusal(
            file, f"{both}: its last round came after fewer than {settings.local_steps} local steps, since the run "
            "ended, and a longer run would have gone on; begin anew",
        )  # fmt: skip


def _check_model(saved: object, model: nn.Module) -> None:
    own = model.state_dict()
    if not isinstance(saved, dict) or list(saved) != list(own):
        raise ValueError("the model's parameters have other names")
    for name, tensor in own.items():
        other = saved[name]
        fits = isinstance(other, Tensor) and other.layout == torch.strided and other.device == tensor.device
        if not fits or (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"{name!r} of the model is {other!r:.60}; expected was a tensor {tuple(tensor.shape)}")


def _check_groups(saved: Mapping[str, Any], inner: Optimizer) -> None:
    """Refuse other options of the inner optimizer than the settings give it; the schedule sets the learning rate."""
    groups = [_options(group) for group in saved["param_groups"]]
    own = [_options(group) for group in inner.param_groups]
    if groups != own:
        raise ValueError(f"the inner optimizer's options are {groups!r:.200}; expected were {own!r:.200}")


def _options(group: Mapping[str, Any]) -> dict[str, str]:
    free = ("params", "lr", "initial_lr", "laconic")
    return {str(name): repr(value) for name, value in sorted(group.items()) if name not in free}


def _warn_of_other_versions(before: object, file: Path) -> None:
    now = _versions()
    saved = before if isinstance(before, dict) else {}
    others = [
        f"{name} {saved.get(name)!s:.40}, here {version}" for name, version in now.items() if saved.get(name) != version
    ]
    if others:
        warn(f"{file} was saved with {' and '.join(others)}: from here on figures may differ in their last bits")


@contextmanager
def refused_as(file: Path) -> Iterator[None]:
    """Turn a complaint about saved state into one that names the file."""
    try:
        yield
    except OptionError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, RecursionError) as error:
        raise _refusal(file, f"does not fit: {error!s:.300}") from error


def _refusal(file: Path, words: str) -> OptionError:
    return OptionError(Named("resume", True), f": {file} {words}")
