"""What a saved run must have in common with the run that is to go on from it: versions, settings, data, model."""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from laconic.drivers.distributed.agreement import versions as fixed_versions
from laconic.drivers.gathered import misfit
from laconic.errors import Named, OptionError, SavedRunError
from laconic.lab.provenance import versions
from laconic.lab.runs.agreement import described_files, without_tables
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.settings import RunSettings
from laconic.statements import warn
from laconic.training.state_dict import VERSION as STATE_VERSION

_FORM = 2  # of the file
_SCALAR = str | int | float | bool | None
_FREE = ("epochs", "timeout_s", "data", "faults")
"""Settings that need not be equal: `check_epochs` looks at the epochs, the data and faults are compared themselves,
and how long a rank is waited for changes no figure."""


def identity_of(experiment: Experiment, plugins: tuple[str, ...]) -> dict[str, Any]:
    """Return all that must be equal when a run goes on: options, data, faults, and files of methods."""
    settings = experiment.settings
    found: dict[str, Any] = {}
    data = settings.as_data()
    found |= {f"set {key}": text for key, text in data.pop("set").items()}
    found |= {name: value for name, value in without_tables(data).items() if name not in _FREE}
    plan = {} if settings.fault_plan is None else tomllib.loads(settings.fault_plan.to_toml())
    found |= {f"faults {name}": value if isinstance(value, _SCALAR) else repr(value) for name, value in plan.items()}
    found |= {name: value for name, value in experiment.task.described().items() if name not in found}
    return found | settings.described_functions() | described_files(plugins)


def library_versions() -> dict[str, str]:
    """Return the versions of what figures are computed with; another one may change their last bits."""
    return {name: str(version) for name, version in versions().items()}  # torch's is a class of its own


def made_by() -> dict[str, str]:
    """Return the versions that the content of a file depends on."""
    return {**fixed_versions(), "form of the file": str(_FORM), "saved state": str(STATE_VERSION)}


def check_versions(content: Mapping[str, Any], file: Path) -> None:
    """Refuse a file of another version of laconic, of its form, of saved state or of the wire format."""
    for name, now in made_by().items():
        before = content["made by"].get(name)
        if type(before) is not type(now) or before != now:
            what = name if name == "laconic" else f"the {name}"
            raise refusal(
                file, f"was made with version {before!r:.40} of {what}, and this is {now!r}; go on with the version "
                "that made it, or begin anew",
            )  # fmt: skip


def check_settings(before: Any, now: Mapping[str, Any], file: Path) -> None:  # noqa: ANN401 - from a file
    """Refuse a run with other settings; the first that differs is named with both values."""
    problem = misfit(before, {str: _SCALAR}, "its settings")
    if problem:
        raise ValueError(problem)
    for name in [*now, *(name for name in before if name not in now)]:
        values = [each.get(name) for each in (before, now)]
        if values[0] != values[1] or isinstance(values[0], bool) != isinstance(values[1], bool):
            shown = ["not set" if value is None else f"{value!r:.60}" for value in values]
            raise refusal(
                file, f"is of a run with another {name}: {shown[0]} there, {shown[1]} now; give what it was made with, "
                "or begin anew in another folder",
            )  # fmt: skip


def check_epochs(before: object, done: int, settings: RunSettings, file: Path, *, has_early_exchange: bool) -> None:
    """Refuse another number of epochs where an uninterrupted run of so many would have begun otherwise.

    Args:
        before: The epochs that the saved run was to have, from the file.
        done: Those that are done.
        settings: The run that is to go on.
        file: For messages.
        has_early_exchange: Whether the last round came after fewer than its local steps, since the run ended.
    """
    now = settings.epochs
    if type(before) is not int or not done <= before:
        raise ValueError(f"it has {done} epochs of {before!r:.40}")
    if now == before:
        return
    both = f"is of a run with epochs {before}, and now they are {now}"
    if now < before:
        raise refusal(file, f"{both}; a run can go on for more epochs, but not for fewer")
    if settings.lr_schedule != "constant":
        raise refusal(
            file, f"{both}: with the {settings.lr_schedule} schedule more epochs change the learning rates of "
            "those that are done; give the same epochs, or begin anew",
        )  # fmt: skip
    if has_early_exchange:
        raise refusal(
            file, f"{both}: its last round came after fewer than {settings.local_steps} local steps, since the run "
            "ended, and a longer run would have gone on; begin anew",
        )  # fmt: skip


def check_model(saved: object, model: nn.Module) -> None:
    """Raise ValueError for what is not the state of this model."""
    own = model.state_dict()
    if not isinstance(saved, dict) or list(saved) != list(own):
        raise ValueError("the model's parameters have other names")
    for name, tensor in own.items():
        other = saved[name]
        fits = isinstance(other, Tensor) and other.layout == torch.strided and other.device == tensor.device
        if not fits or (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"{name!r} of the model is {other!r:.60}; expected was a tensor {tuple(tensor.shape)}")


def check_groups(saved: Mapping[str, Any], inner: Optimizer) -> None:
    """Refuse other options of the inner optimizer than the settings give it; the schedule sets the learning rate."""
    groups = [_options(group) for group in saved["param_groups"]]
    own = [_options(group) for group in inner.param_groups]
    if groups != own:
        raise ValueError(f"the inner optimizer's options are {groups!r:.200}; expected were {own!r:.200}")


def _options(group: Mapping[str, Any]) -> dict[str, str]:
    free = ("params", "lr", "initial_lr", "laconic")
    return {str(name): repr(value) for name, value in sorted(group.items()) if name not in free}


def warn_of_other_versions(before: object, file: Path) -> None:
    """Warn where libraries have other versions than when the file was saved."""
    now = library_versions()
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
        raise refusal(file, f"does not fit: {error!s:.300}") from error


def refusal(file: Path, words: str) -> SavedRunError:
    """Return the error that says why a run cannot go on from a file."""
    return SavedRunError(Named("resume", True), f": {file} {words}")
