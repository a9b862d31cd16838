"""`laconic show`: the paper, equations, hyper-parameters, claims and memories of one method."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import json_option, json_output
from laconic.cli.method import (
    accounting_of,
    claims_of,
    head_of,
    hyperparameter_rows,
    links_of,
    python_line,
    summary_line,
)
from laconic.lab.algorithms import make_algorithm
from laconic.lab.options import OptionGroup, option
from laconic.report.fitting import FittingTable

if TYPE_CHECKING:
    from laconic.contract import Algorithm

_PARAGRAPHS = ("Paper -> here", "Differs:", "Equations:", "Stability:")
_ALMOST_FULL = 60  # a line of a file that is longer goes on in the next one


@dataclass(frozen=True, kw_only=True)
class ShowOptions(OptionGroup):
    """The options of `laconic show`."""

    name: str = option(..., "The algorithm: a name that `laconic list` prints.", positional=True, names="methods")
    set: dict[str, str] = option(
        {}, "Show it with this hyper-parameter. Can be given several times.", metavar="KEY=VALUE"
    )
    accounting: bool = option(False, "Compute the paper's traffic figures and print them beside the published ones.")
    json: Path | None = json_option()


@with_flags(ShowOptions)
def show(context: typer.Context, options: ShowOptions) -> None:
    """Show the paper, equations, hyper-parameters, claims and bits of one algorithm."""
    with json_output(options.json) as file:
        algorithm = make_algorithm(options.name, options.set)
        written = file.write(_data(algorithm, options))
        console = file.console
        if options.accounting:
            _print_accounting(console, algorithm)
        else:
            _print_method(console, algorithm, options)
        if written and not is_quiet(context):
            console.print(written)


def _print_method(console: Console, algorithm: "Algorithm", options: ShowOptions) -> None:
    cls = type(algorithm)
    settings = "".join(f" --set {key}={value}" for key, value in options.set.items())
    console.print(Text.assemble((options.name, "bold"), f": {summary_line(cls)}"))
    lines = [("source", cls.source), *(("paper", link) for link in links_of(cls))]
    lines += [("Python", python_line(algorithm, options.set)), ("command", f"laconic run -a {options.name}{settings}")]
    for name, value in lines:
        console.print(f"{name + ':':<9}{value}", soft_wrap=True)
    console.print()
    for line in paragraphs(head_of(cls)):
        indented = len(line) - len(line.lstrip())
        console.print(Padding(Text(line.lstrip()), (0, 0, 0, indented), expand=False))
    console.print()
    _print_hyperparameters(console, hyperparameter_rows(cls))
    console.print()
    _print_rows(console, "claims (tested)", ("claim", "value"), claims_of(algorithm))


def paragraphs(text: str) -> list[str]:
    """Return the lines of a file's head as paragraphs, to be broken anew. Indented lines stay as they are."""
    found: list[str] = []
    goes_on = False
    for line in text.splitlines():
        if (
            goes_on
            and line[:1].isprintable()
            and line[:1].strip() not in ("", "-", "*")
            and (not line.startswith(_PARAGRAPHS))
        ):
            found[-1] += f" {line}"
        else:
            found.append(line)
        goes_on = len(line) > _ALMOST_FULL and not line.startswith(" ")
    return found


def _data(algorithm: "Algorithm", options: ShowOptions) -> dict[str, Any]:
    cls = type(algorithm)
    if options.accounting:
        rows, sentence = accounting_of(algorithm)
        return {"name": options.name, "accounting": _named(("what", "by_formula", "printed"), rows), "note": sentence}
    return {
        "name": options.name,
        "about": summary_line(cls),
        "source": cls.source,
        "links": links_of(cls),
        "python": python_line(algorithm, options.set),
        "head": head_of(cls),
        "hyperparameters": _named(("key", "default", "range", "unit", "meaning"), hyperparameter_rows(cls)),
        "claims": dict(claims_of(algorithm)),
    }


def _named(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def _print_hyperparameters(console: Console, rows: Sequence[tuple[str, str, str, str, str]]) -> None:
    if not rows:
        console.print("no hyper-parameters")
        return
    table = FittingTable("hyper-parameters (--set KEY=VALUE)", remedy="a wider terminal or --json - shows them")
    table.add_column("key")
    table.add_column("default")
    table.add_column("range", importance=2, wraps=True)
    table.add_column("unit", importance=1, wraps=True)
    table.add_column("meaning", importance=3, wraps=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_accounting(console: Console, algorithm: "Algorithm") -> None:
    rows, sentence = accounting_of(algorithm)
    _print_rows(console, f"{algorithm.name}: the paper's traffic figures", ("what", "by formula", "printed"), rows)
    console.print(sentence)


def _print_rows(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = FittingTable(title)
    for column in columns:
        table.add_column(column, wraps=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
