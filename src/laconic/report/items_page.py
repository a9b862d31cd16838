"""The page of all items: printed beside measured, the rules, the verdicts, and what has not been run."""

from collections.abc import Iterable, Sequence

from laconic.report.items import COLUMNS, cells_of, verdict_text
from laconic.reproduce.item_runs import MadeWith
from laconic.reproduce.items import Item, Setting, setting_of
from laconic.reproduce.judging import Line

Found = Sequence[tuple[Item, Sequence[Line]]]
_PAPERS = {
    "000": "CompSkipDSGD (Phuong, Phong, Fukushima, 2023)",
    "001": "SASG (Deng, Li, Sun, Lu)",
    "002": "Distributed sparse SGD with majority voting (Ozfatura, Ozfatura, Gündüz, 2020)",
    "003": "Distributed learning systems with first-order methods (Liu, Zhang, 2020)",
    "004": "DropSignSGD (Phong, Phuong, 2020)",
}
_INTRODUCTION = """# Reproductions

Every table and figure that the five papers print: what is printed beside what was measured here, the rule, the verdict.
This page is written by `laconic reproduce --page`; do not edit it.

"Holds" means at this scale: no rule claims a printed accuracy on ImageNet or CIFAR-10, only orders, ratios, exponents
and bits. Rules, with three seeds, differences paired by seed:

- **Order**, A above B with a band: holds if the mean difference is above the band and has its sign in two of three
  seeds; within band if it is no larger than the band.
- **No loss**, A at least B less a margin: within band if it misses the margin by less than 0.3.
- **Interval**: within band if the mean misses an end by less than a tenth of it. A run that misses its target counts
  with its whole traffic and a ">"; it is then within band at best.
- **Exponent**: holds within 0.15, within band to 0.25, or as its line says.
- **Computed**: equal to the printed figure after rounding to its digits.

Points are percent of the test examples. "Lowest" and "highest" are those of the seeds.
"""


def page_of(found: Found, made_with: MadeWith) -> str:
    """Return the page as Markdown."""
    settings = {item.setting: setting_of(item.setting) for item, _ in found if item.setting}
    parts = [_INTRODUCTION, _provenance(made_with), _commands(settings.values()), _overview(found)]
    for paper, title in _PAPERS.items():
        parts.append(f"## {paper}: {title}\n")
        parts += [_section(item, lines) for item, lines in found if item.paper == paper]
    parts += ["## Settings\n", *(_setting(setting) for setting in settings.values())]
    return "\n".join(parts)


def _provenance(made_with: MadeWith) -> str:
    if not made_with.dates:
        return "Nothing has been run yet.\n"
    days = made_with.dates[0] if len(made_with.dates) == 1 else f"{made_with.dates[0]} to {made_with.dates[-1]}"
    with_versions = "; ".join(
        ", ".join(f"{name} {version}" for name, version in one.items() if version) for one in made_with.versions
    )
    machines = "; ".join(", ".join(f"{name} {value}" for name, value in one.items()) for one in made_with.machines)
    return (
        f"{days}. {made_with.n_runs} runs; {made_with.hours:.2f} hours of runs and figures added up, on a machine "
        f"shared with others. {with_versions}. {machines}.\n"
    )


def _commands(settings: Iterable[Setting]) -> str:
    names = sorted({name for setting in settings for name in setting.data})
    data = "".join(f" --data {name}=FOLDER" for name in names)
    return (
        f"```\nlaconic reproduce --all --out FOLDER{data}\nlaconic reproduce ITEM --out FOLDER --data NAME=FOLDER\n"
        "laconic reproduce --out FOLDER --page docs/results/reproductions.md\n```\n"
    )


def _overview(found: Found) -> str:
    rows = ["| item | prints | kind | verdict |", "|---|---|---|---|"]
    rows += [f"| {item.name} | {item.prints} | {item.kind} | {verdict_text(item, lines)} |" for item, lines in found]
    return "\n".join(rows) + "\n"


def _section(item: Item, lines: Sequence[Line]) -> str:
    parts = [f"### {item.name}: {item.prints}\n", f"{item.title[0].upper()}{item.title[1:]}. {item.scaled}\n"]
    if item.why:
        return "\n".join([*parts, f"Not here: {item.why}.\n"])
    if item.draws:
        parts.append("Drawn by " + ", ".join(f"`laconic timeline {name}`" for name in item.draws) + ".\n")
    if any(line.figure is None for line in lines) or (item.rules and not lines):
        parts.append(
            "Not run yet, where a line has no figure.\n" if any(one.figure for one in lines) else "Not run yet.\n"
        )
    if lines:
        parts.append(_table(lines))
    parts += [f"- {note}" for note in item.notes]
    parts += [f"- Tried: {note}" for note in item.tried]
    return "\n".join(parts) + "\n"


def _table(lines: Sequence[Line]) -> str:
    rows = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    rows += [f"| {' | '.join(_escaped(text) for text in cells_of(line))} |" for line in lines]
    return "\n".join(rows) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _setting(setting: Setting) -> str:
    options = ", ".join(f"{name} {value}" for name, value in setting.run.items())
    rows = [
        f"- {name}: " + ", ".join(f"{key} {_text(value)}" for key, value in row.items())
        for name, row in setting.rows.items()
    ]
    found = [f"Learning rates: {setting.grid_found}.\n"] if setting.grid_found else []
    return "\n".join([
        f"### {setting.name}: {setting.title}\n",
        f"{setting.scaled}\n", f"Seeds {', '.join(map(str, setting.seeds))}. {options}.\n", *found, *rows,
        *(f"- {note}" for note in setting.notes), "",
    ])  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key}={one}" for key, one in value.items()) + ")"
    return str(value)
