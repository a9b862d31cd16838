"""`laconic data partition`."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from laconic.cli.flags import Given, with_flags
from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import json_option, json_output
from laconic.errors import Named, OptionError
from laconic.lab.defaults import PICTURE_ENDINGS
from laconic.lab.options import OptionGroup, file_of_kind, option, options_of
from laconic.lab.outputs import output_file
from laconic.lab.runs.settings import OF_DATA, RunSettings
from laconic.report.visible import visible

_WITHOUT = tuple(field.name for field, _ in options_of(RunSettings) if field.name not in OF_DATA)


@dataclass(frozen=True, kw_only=True)
class PartitionOptions(OptionGroup):
    """Where the partition is drawn and written to."""

    plot: Path | None = option(
        None, "A .png, .svg or .pdf file to draw the partition to: a bar for each worker, a color for each class.",
        metavar="FILE", reads=file_of_kind(*PICTURE_ENDINGS),
    )  # fmt: skip
    json: Path | None = json_option()


@with_flags(Given(RunSettings, without=_WITHOUT), PartitionOptions)
def data_partition(context: typer.Context, given: dict[str, Any], options: PartitionOptions) -> None:
    """Show how workers share a data set: examples and classes of each."""
    from laconic.lab.partitions import shares_of, summary
    from laconic.lab.runs.chosen_task import examples_of
    from laconic.report.partition_picture import draw_partition

    settings = RunSettings(algorithm="sgd", **given)
    with ExitStack() as stack:
        file = stack.enter_context(json_output(options.json))
        plot = None if options.plot is None else stack.enter_context(output_file(options.plot, option="plot"))
        dataset, partition, _ = examples_of(settings)
        shares = shares_of(partition, dataset.train_labels, dataset.n_classes)
        if plot is not None and not shares:
            raise OptionError(
                Named("plot", str(plot.path)), " draws shards, and with ", Named("partition", settings.partition),
                " all workers draw from all examples; take another partition, or leave it out",
            )  # fmt: skip
        for line in summary(partition, dataset.train_labels, dataset.n_classes):
            file.console.print(visible(line), soft_wrap=True)
        written = file.write(
            {
                "dataset": dataset.name, "partition": settings.partition, "classes": dataset.n_classes,
                "train_examples": len(dataset.train_labels), "rounds_in_an_epoch": partition.rounds_per_epoch,
                "workers": [{"examples": share.examples, "of_class": list(share.of_class)} for share in shares],
            }
        )  # fmt: skip
        if plot is not None:
            title = f"{dataset.name}, {'data of each worker' if settings.worker_data else settings.partition}"
            plot.write_bytes(draw_partition(shares, title, plot.path.suffix.lower()))
        if not is_quiet(context):
            for line in filter(None, (written, f"wrote {visible(str(plot.path))}" if plot is not None else "")):
                file.console.print(line, soft_wrap=True)
