"""The items of the five papers: one TOML file for each printed table and figure, in the folder `experiments`.

An item says what the paper prints, how it is run here, and by which rules the two are compared. Its first line says
what is scaled down. Settings that several items share are in the folder `experiments/settings`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeVar, get_origin

from laconic.hyperparameters import near_misses

KINDS = ("computed", "trained", "drawn", "not here")
RULES = ("order", "no loss", "interval", "exponent", "computed", "shown")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is compared with print, and how: `laconic.reproduce.rules` has the kinds."""

    kind: str
    """One of RULES; "shown" stands beside print without a verdict."""
    of: tuple[str, ...]
    """The rows of an item that trains, or the computed figures. Each is judged by itself."""
    against: str = ""
    """The row that each is compared with."""
    measure: str = ""
    """What is read off the runs, with its arguments: a name in `laconic.reproduce.measures`. Empty for computed."""
    printed: str = ""
    """What the paper prints, with its digits."""
    band: float = 0.0
    """What may be luck in an order, in the unit of its figures."""
    every_seed: bool = False
    margin: float = 0.0
    ratio: bool = False
    """Whether the interval is one of the ratio to `against`, not of the figure."""
    low: float | None = None
    high: float | None = None
    nearly: float | None = None
    """The share of an end by which the interval may be missed within the band; None for that of all items."""
    tolerance: float | None = None
    """In place of both ends: the share of the printed figure by which an interval reaches to both sides of it."""
    expected: float = 0.0
    holds: float | None = None
    """How far an exponent may be from `expected`; None for that of all items."""
    fewer: bool = False
    """Whether less is what the paper claims: of the two sides of an order, the second is the larger one."""
    truncated: bool = False
    """Whether print cuts digits off in place of rounding."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A pair of axes of an item's picture, as the paper has them: curves of runs, or a fit on logarithmic axes."""

    x: str
    """What is read off the looks of runs: a name in `laconic.reproduce.pictures`. Of a fit, what varies, or 1/eps."""
    y: str
    rows: tuple[str, ...] = ()
    """Empty for all rows of the item. Of a fit, computed figures named "ROW, X = 1", "ROW, X = 2" and so on, or runs
    of rows "ROW X=1", "ROW X=2" whose mean squared gradient is eps."""
    slope: float | None = None
    """Of a fit, the slope of the straight line that stands beside it; None for curves of runs."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A printed table or figure."""

    paper: str
    """Its number among the papers of the README: 000 to 004."""
    prints: str
    """Its name in the paper: that of a table, a figure or a section."""
    title: str
    kind: str
    """One of KINDS: computed in seconds, trained here, a schematic that is drawn, or not here."""
    minutes: float = 0.0
    """What it takes on two cores, if nothing of it has been run before."""
    why: str = ""
    """Why it is not here."""
    compute: str = ""
    """A name in `laconic.reproduce.computed`."""
    compute_in_full: str = ""
    """The same for --full; empty for figures that are not scaled down."""
    setting: str = ""
    """The name of a file in `experiments/settings`."""
    rows: tuple[str, ...] = ()
    """Rows of the setting."""
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Rows of this item alone: `like` names the row that they change."""
    own_in_full: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further options of these rows for --full."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Options of `laconic run` that this item has otherwise than its setting."""
    draws: tuple[str, ...] = ()
    """Timelines that show it: names that `laconic timeline --list` prints."""
    records: str = ""
    """A name in `laconic.reproduce.recorded_rounds`, of rounds that are drawn as a timeline."""
    rules: tuple[Rule, ...] = ()
    panels: tuple[Panel, ...] = ()
    """The axes of its picture; empty for an item that is no figure."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Names of rows in its picture, where they are not those of the rows."""
    notes: tuple[str, ...] = ()
    """What differs from print: misprints, what the paper leaves open, what was found."""
    tried: tuple[str, ...] = ()
    """What else was run where a printed relation does not hold."""
    name: str
    """The name of its file."""
    scaled: str
    """What is scaled down: the first line of its file."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Runs that several items share."""

    title: str
    seeds: tuple[int, ...]
    data: tuple[str, ...] = ()
    """The names of the data sets behind --data NAME=PATH; empty for one that needs none."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Options that name files in that folder, where the folder itself is not what is read."""
    look_every: int
    """Steps between two tests."""
    run: Mapping[str, Any]
    """Options of `laconic run` that all rows have."""
    rows: Mapping[str, Mapping[str, Any]]
    """Options of `laconic run` by row."""
    full: Mapping[str, Any] = field(default_factory=dict)
    """Options of the printed setting, for --full."""
    rows_in_full: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further options of rows for --full."""
    data_in_full: tuple[str, ...] = ()
    """The names of the data sets of the printed setting, where they are others."""
    not_in_full: str = ""
    """Why the printed setting cannot be run."""
    grids: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Learning rates that --grid tries, by row; without one a third, one and three times the row's."""
    is_searched: bool = True
    """Whether --grid tries other learning rates: not where theorems give them."""
    grid_found: str = ""
    """When and how the learning rates were found."""
    notes: tuple[str, ...] = ()
    name: str
    scaled: str


def items() -> dict[str, Item]:
    """Return all items by name, in the order of their names.

    Raises:
        ValueError: A file is not a valid item. The message names the file and the key.
    """
    return dict(_items())


@cache
def _items() -> tuple[tuple[str, Item], ...]:
    found = sorted((one for one in _folder().iterdir() if one.name.endswith(".toml")), key=lambda one: one.name)
    return tuple((name, _item(one, name)) for one in found for name in [one.name.removesuffix(".toml")])


def item_of(name: str, others: Sequence[str] = ()) -> Item:
    """Return the item of this name. Raises ValueError, with near misses among `others` too, if there is none."""
    known = items()
    if name not in known:
        near = near_misses(name, [*known, *others])
        raise ValueError(f"unknown item {name!r}; `laconic reproduce --list` prints all{near}")
    return known[name]


def in_full(item: Item) -> Item:
    """Return an item as --full asks for it: what it computes, and the options of its own rows."""
    return replace(item, compute=item.compute_in_full or item.compute, own=_with_more(item.own, item.own_in_full))


@cache
def setting_of(name: str) -> Setting:
    """Return the setting of this name. Raises ValueError as `items`."""
    return _read(Setting, _folder() / "settings" / f"{name}.toml", name)


def setting_in_full(setting: Setting) -> Setting:
    """Return the printed setting in place of the scaled one."""
    return replace(
        setting, run={**setting.run, **setting.full}, rows=_with_more(setting.rows, setting.rows_in_full),
        data=setting.data_in_full or setting.data, files={} if setting.data_in_full else setting.files,
    )  # fmt: skip


Rows = Mapping[str, Mapping[str, Any]]


def _with_more(rows: Rows, more: Rows) -> Rows:
    """Return rows with further options, which have their way; those of `set` one by one."""
    merged = {name: {**row, **more.get(name, {})} for name, row in rows.items()}
    for name, row in merged.items():
        if "set" in row:
            row["set"] = {**rows[name].get("set", {}), **row["set"]}
    return merged


def _folder() -> Traversable:
    return files("laconic.reproduce") / "experiments"


def fault_plan(name: str) -> Traversable:
    """Return the fault plan of this name that items run with."""
    return _folder() / "faults" / name


def _item(file: Traversable, name: str) -> Item:
    item = _read(Item, file, name)
    if item.kind not in KINDS:
        raise ValueError(f"{file.name}: kind={item.kind!r} must be one of {', '.join(KINDS)}")
    if (item.kind == "not here") != bool(item.why):
        raise ValueError(f"{file.name}: an item that is not here, and no other, says why")
    return item


def _read(cls: type[T], file: Traversable, name: str) -> T:
    """Return what a file holds as an object of `cls`, with its name and its first line."""
    text = file.read_text(encoding="utf-8")
    heading = text.splitlines()[0]
    if not heading.startswith("# "):
        raise ValueError(f"{file.name}: the first line must be a comment that says what is scaled down")
    data = tomllib.loads(text)
    return _made(cls, {**data, "name": name, "scaled": heading.removeprefix("# ")}, file.name)


def _made(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    known = {one.name: one for one in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{near_misses(key, list(known))}")
    for one in known.values():
        if one.name not in data and one.default is one.default_factory is MISSING:
            raise ValueError(f"{where}: {one.name} is missing")
    return cls(**{key: _value(known[key].type, value, where) for key, value in data.items()})


def _value(kind: object, value: Any, where: str) -> Any:  # noqa: ANN401 - what a TOML file holds
    """Return a value of a file as the field's type: lists as tuples, tables of rules as rules."""
    if kind == tuple[Rule, ...]:
        return tuple(_rule(one, where) for one in value)
    if kind == tuple[Panel, ...]:
        return tuple(_made(Panel, one, f"{where}, a panel") for one in value)
    if get_origin(kind) is tuple:
        return tuple(value) if isinstance(value, list) else (value,)
    return value


def _rule(data: Mapping[str, Any], where: str) -> Rule:
    rule = _made(Rule, data, f"{where}, a rule")
    if rule.kind not in RULES:
        raise ValueError(f"{where}: a rule's kind={rule.kind!r} must be one of {', '.join(RULES)}")
    return rule
