"""The page of all items: printed beside measured, the rules, the verdicts, and what has not been run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from laconic.report.items import COLUMNS, cells_of, number_text, verdict_text
from laconic.reproduce.grid import Try
from laconic.reproduce.item_runs import MadeWith
from laconic.reproduce.items import Item, Setting, setting_of
from laconic.reproduce.judging import Line
from laconic.reproduce.time_spent import AT_ONCE, HOURS_OF_ALL, MINUTES_OF_AN_ITEM, TimeSpent, time_of_all


@dataclass(frozen=True, kw_only=True)
class ItemOnPage:
    """An item with all that the page says of it."""

    item: Item
    lines: Sequence[Line]
    spent: TimeSpent
    is_stale: bool = False
    """Whether its computed figures are those of an earlier version of their code."""
    picture: str = ""
    """The file of its picture, relative to the page; empty for none."""


Found = Sequence[ItemOnPage]
Searched = Sequence[tuple[Try, float]]
"""Finished tries of learning rates, with what each has reached."""
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
- **Interval**: within band if the mean misses an end by less than a tenth of it, or as its line says. A run that misses
  its target counts with its whole traffic and a ">"; it is then within band at best.
- **Exponent**: holds within 0.15, within band to 0.25, or as its line says.
- **Computed**: equal to the printed figure after rounding to its digits.

Points are percent of test examples. "Lowest" and "highest" are those of the seeds. Pictures have the paper's axes: a
line is the mean over seeds, a band reaches to the lowest and the highest one. What is not finished has no picture.
"""


def page_of(found: Found, made_with: MadeWith, searched: Searched = ()) -> str:
    """Return the page as Markdown."""
    settings = {one.item.setting: setting_of(one.item.setting) for one in found if one.item.setting}
    parts = [_INTRODUCTION, _provenance(made_with), _commands(settings.values()), _overview(found), _time(found)]
    for paper, title in _PAPERS.items():
        parts.append(f"## {paper}: {title}\n")
        parts += [_section(one) for one in found if one.item.paper == paper]
    parts.append("## Settings\n")
    for name, setting in settings.items():
        parts += [_setting(setting), *_search([one for one in searched if one[0].setting == name])]
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
    rows = ["| item | prints | kind | minutes | verdict |", "|---|---|---|---|---|"]
    rows += [
        f"| {one.item.name} | {one.item.prints} | {one.item.kind} | {_minutes(one.spent)} | "
        f"{verdict_text(one.item, one.lines)} |"
        for one in found
    ]
    return "\n".join(rows) + "\n"


def _minutes(spent: TimeSpent) -> str:
    if not spent.seconds:
        return ""
    text = f"{spent.minutes:.1f}" if spent.minutes >= 0.1 else "< 0.1"
    return f"{text} and more" if spent.n_left else text


def _time(found: Found) -> str:
    """Return how long everything took, beside what it may take."""
    together = time_of_all([one.spent for one in found])
    longer = [f"{one.item.name} ({one.spent.minutes:.0f})" for one in found if one.spent.minutes > MINUTES_OF_AN_ITEM]
    left = ", and not all has been run" if together.n_left else ""
    above = f" Above {MINUTES_OF_AN_ITEM:g} minutes are {', '.join(longer)}." if longer else ""
    return (
        f"Minutes are the times of an item's runs and figures added up, with {AT_ONCE} at once, shared ones included. "
        f"Shared ones counted once, all items take {together.minutes / 60:.2f} hours{left}; they may take "
        f"{HOURS_OF_ALL:g}, and an item {MINUTES_OF_AN_ITEM:g} minutes (those of settings a and a2 twice that).{above}"
        "\n"
    )


def _section(one: ItemOnPage) -> str:
    item, lines = one.item, one.lines
    parts = [f"### {item.name}: {item.prints}\n", f"{item.title[0].upper()}{item.title[1:]}. {item.scaled}\n"]
    if item.why:
        return "\n".join([*parts, f"Not here: {item.why}.\n"])
    if item.draws:
        parts.append("Drawn by " + ", ".join(f"`laconic timeline {name}`" for name in item.draws) + ".\n")
    if item.records:
        parts.append(f"Drawn by `laconic reproduce {item.name}`.\n")
    if any(line.figure is None for line in lines) or (item.rules and not lines):
        parts.append(
            "Not run yet, where a line has no figure.\n" if any(line.figure for line in lines) else "Not run yet.\n"
        )
    if one.is_stale:
        parts.append("Computed by an earlier version of the code: run it again.\n")
    if lines:
        parts.append(_table(lines))
    if one.picture:
        parts.append(f"![{item.prints}: {item.title}]({one.picture})\n")
    parts += [f"- {note}" for note in item.notes]
    parts += [f"- Tried: {note}" for note in item.tried]
    return "\n".join(parts) + "\n"


def _search(tries: Searched) -> list[str]:
    """Return the table of a search of learning rates; nothing if there was none."""
    if not tries:
        return []
    seed, epochs = tries[0][0].cell.settings.seed, tries[0][0].cell.settings.epochs
    rows = [
        f"| {one.row} | {one.learning_rate:.3g} | {number_text(value)} |"
        for one, value in sorted(tries, key=lambda pair: (pair[0].row, pair[0].factor))
    ]
    return [
        f"Searched with `--grid`: the same tries for each method, seed {seed}, {epochs} epochs. Reached: final "
        "accuracy in points, or the gap below 0.\n",
        "\n".join(["| row | rate | reached |", "|---|---|---|", *rows]) + "\n",
    ]


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
