"""`laconic data partition`."""

from typing import Any

import typer

from laconic.cli.flags import Given, with_flags
from laconic.lab.options import options_of
from laconic.lab.runs.settings import OF_DATA, RunSettings
from laconic.report.terminal import terminal
from laconic.report.visible import visible

_WITHOUT = tuple(field.name for field, _ in options_of(RunSettings) if field.name not in OF_DATA)


@with_flags(Given(RunSettings, without=_WITHOUT))
def data_partition(context: typer.Context, given: dict[str, Any]) -> None:
    """Show how workers share a data set: examples and classes of each."""
    from laconic.lab.datasets import load
    from laconic.lab.partitions import partition_of, summary

    settings = RunSettings(algorithm="sgd", **given)
    dataset = load(settings.dataset, settings.data, examples=settings.examples, **settings.reading)
    partition = partition_of(settings.partition, dataset.train_labels, **settings.of_partition)
    for line in summary(partition, dataset.train_labels, dataset.n_classes):
        terminal().print(visible(line), soft_wrap=True)
