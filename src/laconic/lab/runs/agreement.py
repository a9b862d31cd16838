"""What the ranks of a command must have in common, compared before it trains: options, and the data of each."""

import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from laconic.drivers.distributed.agreement import Scalar, agree
from laconic.drivers.distributed.meeting import Meeting, refusals_shown
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.settings import RunSettings

_TOPIC = "command"

_OWN = ("data", "test_data", "threads", "kernel_threads", "timeout_s", "workers", "driver")
"""Options that each rank has for itself; what is in its data is compared, not where they are."""
_PURPOSE = "to begin its run"


def refusals_of_command_shown() -> AbstractContextManager[None]:
    """Show an exception to the other ranks of the command, which wait for this one to agree with it."""
    return refusals_shown(None, _TOPIC)


def agree_on_plans(
    plans: Sequence[RunSettings], plugins: Sequence[str], timeout_s: float, saves: Mapping[str, Scalar] | None = None
) -> None:
    """Compare the options of all runs of a command, and the files with algorithms. Collective.

    Args:
        plans: The runs.
        plugins: The files.
        timeout_s: How long another rank is waited for, seconds.
        saves: The options that say when runs are saved and whether they go on, by name.

    Raises:
        SetupError: naming the first difference and both ranks.
        PeerLostError: A rank is missing.
    """
    settings = {**settings_of_command(plans, plugins), **(saves or {})}
    agree(Meeting.of_group(None, _TOPIC), settings, _PURPOSE, timeout_s)


def settings_of_command(plans: Sequence[RunSettings], plugins: Sequence[str]) -> dict[str, Scalar]:
    """Return what all ranks must have in common, by a name for each."""
    settings: dict[str, Scalar] = {"algorithms": ", ".join(plan.algorithm for plan in plans)}
    for plan in plans:
        values = {name: value for name, value in plan.as_data().items() if name not in _OWN}
        hyperparameters = values.pop("set")
        values["device"] = plan.device.partition(":")[0]  # each rank may have a GPU of another number
        for name, value in {**without_tables(values), **hyperparameters}.items():
            settings[f"{plan.algorithm}/{name}"] = value if isinstance(value, int | float | bool) else str(value)
        settings |= plan.described_functions()
    return settings | described_files(plugins)


def without_tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with each entry of a table as one of its own: `task_set.noise`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{key}": text for key, text in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def left_at_rank_0(plans: Sequence[RunSettings], left: Sequence[RunSettings]) -> list[RunSettings]:
    """Return the plans that are left to run at rank 0, which alone reads what is finished. Collective."""
    names = {plan.algorithm for plan in left}
    flags = torch.tensor([plan.algorithm in names for plan in plans], dtype=torch.uint8)
    dist.broadcast(flags, 0)
    return [plan for plan, flag in zip(plans, flags.tolist(), strict=True) if flag]


def agree_on_data(experiment: Experiment, timeout_s: float) -> None:
    """Compare the examples that all ranks have read. Collective. Raises as `agree_on_plans`."""
    agree(Meeting.of_group(None, _TOPIC), dict(experiment.task.described()), _PURPOSE, timeout_s)


def described_files(plugins: Sequence[str]) -> dict[str, Scalar]:
    """Return a hash of each file with algorithms, by a name for it."""
    return {
        f"--load {Path(file).name}/hash of file {number}": zlib.crc32(Path(file).read_bytes())
        for number, file in enumerate(plugins)
    }
