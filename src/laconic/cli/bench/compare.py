"""`laconic bench compare`: compare two result files of one bench."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from laconic.bench.compare import BenchComparison, Change, compare_files
from laconic.cli.bench.table import bench_table
from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import json_option, json_output
from laconic.lab.options import OptionGroup, option
from laconic.units import seconds_text


@dataclass(frozen=True, kw_only=True)
class CompareOptions(OptionGroup):
    """The options of `laconic bench compare`."""

    before: Path = option(
        ..., "The first result file, written by `laconic bench ... --json`.", metavar="A.json", positional=True
    )
    after: Path = option(..., "The second result file, of the same bench.", metavar="B.json", positional=True)
    json: Path | None = json_option()


@with_flags(CompareOptions, needs_torch=False, alone=True)
def bench_compare(context: typer.Context, options: CompareOptions) -> None:
    """Compare two result files of one bench: the ratio of medians, and a verdict if the quartiles do not overlap."""
    before, after = options.before, options.after
    with json_output(options.json) as file:
        found = compare_files(before, after)
        table = bench_table(
            f"bench {found.bench}: {after.name} over {before.name}",
            "ratio: the median of B over that of A. There is a verdict only if the quartile ranges do not overlap",
            ["what"], ["A", "B", "ratio"], always="ratio",
        )  # fmt: skip
        table.add_column("verdict")
        for change in found.changes:
            ratio = change.ratio
            table.add_row(
                ", ".join(change.name), _text(change, change.before), _text(change, change.after),
                "" if ratio is None else f"{ratio:.2f}", change.verdict,
            )  # fmt: skip
        notes = [
            f"only in {which}: {', '.join(alone)}"
            for which, alone in ((before, found.only_before), (after, found.only_after)) if alone
        ]  # fmt: skip
        if found.differences:
            notes.append(f"not the same: {'; '.join(found.differences)}")
        notes.append(file.write(_data(found)))
        file.console.print(table)
        if not is_quiet(context):
            for note in filter(None, notes):
                file.console.print(note, soft_wrap=True)


def _data(found: BenchComparison) -> dict[str, Any]:
    changes = [asdict(change) | {"ratio": change.ratio} for change in found.changes]
    return asdict(found) | {"changes": changes}


def _text(change: Change, value: float) -> str:
    return seconds_text(value) if change.unit == "s" else f"{value:.3g}"
