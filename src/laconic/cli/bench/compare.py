"""`laconic bench compare`: compare two result files of one bench."""

from dataclasses import dataclass
from pathlib import Path

import typer

from laconic.bench.compare import Change, compare_files
from laconic.cli.bench.table import bench_table
from laconic.cli.flags import with_flags
from laconic.lab.options import OptionGroup, option
from laconic.report.terminal import terminal
from laconic.units import seconds_text


@dataclass(frozen=True, kw_only=True)
class CompareOptions(OptionGroup):
    """The options of `laconic bench compare`."""

    before: Path = option(
        ..., "The first result file, written by `laconic bench ... --json`.", metavar="A.json", positional=True
    )
    after: Path = option(..., "The second result file, of the same bench.", metavar="B.json", positional=True)


@with_flags(CompareOptions, needs_torch=False)
def bench_compare(context: typer.Context, options: CompareOptions) -> None:
    """Compare two result files of one bench: the ratio of medians, and a verdict if the quartiles do not overlap."""
    before, after = options.before, options.after
    found = compare_files(before, after)
    console = terminal()
    table = bench_table(
        f"bench {found.bench}: {after.name} over {before.name}",
        "ratio: the median of B over that of A. There is a verdict only if the quartile ranges do not overlap",
        ["what"], ["A", "B", "ratio"],
    )  # fmt: skip
    table.add_column("verdict", no_wrap=True)
    for change in found.changes:
        ratio = change.ratio
        table.add_row(
            ", ".join(change.name), _text(change, change.before), _text(change, change.after),
            "" if ratio is None else f"{ratio:.2f}", change.verdict,
        )  # fmt: skip
    console.print(table)
    for which, alone in ((before, found.only_before), (after, found.only_after)):
        if alone:
            console.print(f"only in {which}: {', '.join(alone)}", soft_wrap=True)
    if found.differences:
        console.print(f"not the same: {'; '.join(found.differences)}", soft_wrap=True)


def _text(change: Change, value: float) -> str:
    return seconds_text(value) if change.unit == "s" else f"{value:.3g}"
