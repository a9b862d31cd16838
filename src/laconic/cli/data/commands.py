"""`laconic data check` and `laconic data fetch`."""

from dataclasses import dataclass
from pathlib import Path

import typer

from laconic.cli.exit_codes import ANSWER_IS_NO
from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.lab.defaults import PUBLISHED_NAMES
from laconic.lab.options import OptionGroup, listed, option
from laconic.report.terminal import terminal
from laconic.report.visible import visible


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions(OptionGroup):
    """The data set to check."""

    name: str = option(..., f"The data set: {listed(PUBLISHED_NAMES)}.", positional=True, choices=PUBLISHED_NAMES)
    data: Path = option(..., "The folder with its files.", metavar="FOLDER")


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
    states = states_of(options.name, folder)
    for state in states:
        _say(state.line)
    if not all(state.is_right for state in states):
        raise typer.Exit(ANSWER_IS_NO)
    dataset = load(options.name, folder)
    _say(
        f"{options.name}: {len(dataset.train_labels):,} train and {len(dataset.test_labels):,} test examples of shape "
        f"{'x'.join(map(str, dataset.input_shape))}, {dataset.n_classes} classes"
    )


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
