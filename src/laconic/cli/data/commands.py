"""`laconic data check` and `laconic data fetch`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from laconic.cli.exit_codes import ANSWER_IS_NO
from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import json_option, json_output
from laconic.lab.defaults import PUBLISHED_NAMES
from laconic.lab.options import OptionGroup, listed, option
from laconic.report.terminal import terminal
from laconic.report.visible import visible

if TYPE_CHECKING:
    from laconic.lab.datasets import Dataset
    from laconic.lab.datasets.checking import FileState


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions(OptionGroup):
    """The data set to check."""

    name: str = option(..., f"The data set: {listed(PUBLISHED_NAMES)}.", positional=True, choices=PUBLISHED_NAMES)
    data: Path = option(..., "The folder with its files.", metavar="FOLDER")
    json: Path | None = json_option()


@dataclass(frozen=True, kw_only=True)
class FetchOptions(OptionGroup):
    """The data set to fetch, from where and to where."""

    name: str = option(..., f"The data set: {listed(PUBLISHED_NAMES)}.", positional=True, choices=PUBLISHED_NAMES)
    data: Path = option(..., "The folder for its files.", metavar="FOLDER")
    url: str = option(
        ..., "The address of a folder that holds the published files or their archive, http or https.", metavar="URL"
    )


@with_flags(CheckDataOptions)
def data_check(context: typer.Context, options: CheckDataOptions) -> None:
    """Check that the files of a data set are there, have the published checksums and can be read."""
    from laconic.lab.datasets import load
    from laconic.lab.datasets.checking import states_of

    folder = options.data.expanduser()
    with json_output(options.json) as file:
        states = states_of(options.name, folder)
        for state in states:
            file.console.print(visible(state.line), soft_wrap=True)
        is_right = all(state.is_right for state in states)
        dataset = load(options.name, folder) if is_right else None
        written = file.write(_found(options.name, states, dataset))
        if dataset is not None:
            file.console.print(visible(_line_of(options.name, dataset)), soft_wrap=True)
        if written and not is_quiet(context):
            file.console.print(written, soft_wrap=True)
    if not is_right:
        raise typer.Exit(ANSWER_IS_NO)


def _line_of(name: str, dataset: "Dataset") -> str:
    return (
        f"{name}: {len(dataset.train_labels):,} train and {len(dataset.test_labels):,} test examples of shape "
        f"{'x'.join(map(str, dataset.input_shape))}, {dataset.n_classes} classes"
    )


def _found(name: str, states: "Sequence[FileState]", dataset: "Dataset | None") -> dict[str, Any]:
    """Return what is known of each file, and what the data set holds if all are right."""
    files = [
        {"file": str(state.path), "published": state.known, "found": state.found, "is_right": state.is_right}
        for state in states
    ]
    holds = None if dataset is None else {
        "train_examples": len(dataset.train_labels), "test_examples": len(dataset.test_labels),
        "input_shape": list(dataset.input_shape), "classes": dataset.n_classes,
    }  # fmt: skip
    return {"dataset": name, "files": files, "holds": holds}


@with_flags(FetchOptions)
def data_fetch(context: typer.Context, options: FetchOptions) -> None:
    """Fetch the files of a published data set from an address, go on where a fetch broke off, and check them."""
    from laconic.lab.datasets.fetching import fetch

    def say(line: str) -> None:
        if not is_quiet(context):
            _say(line)

    fetch(options.name, options.data.expanduser(), options.url, say)


def _say(line: str) -> None:
    terminal().print(visible(line), soft_wrap=True)
