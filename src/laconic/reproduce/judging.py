"""The lines of an item: what is printed, what was measured, the rule, the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from laconic.reproduce import rules
from laconic.reproduce.computed import Values
from laconic.reproduce.items import Item, Rule
from laconic.reproduce.measures import FinishedRuns, measured
from laconic.reproduce.rules import Measured, Verdict


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is of an item."""

    computed: Values | None = None
    cells: FinishedRuns = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure beside its printed one."""

    what: str
    printed: str
    figure: Measured | None
    """What the rule looks at; None where nothing has been run yet."""
    rule: str
    verdict: Verdict | None
    """None for what is only shown, or has not been run."""
    note: str = ""


def lines_of(item: Item, found: Found) -> list[Line]:
    """Return the lines of an item's rules, one for each row that a rule names."""
    return [_line(rule, row, found) for rule in item.rules for row in rule.of]


def verdict_of(lines: Sequence[Line]) -> Verdict | None:
    """Return the verdict of an item: the worst of its lines; None if a line that is judged has not been run."""
    judged = [line for line in lines if line.rule]
    if not judged or any(line.verdict is None for line in judged):
        return None
    return rules.verdict_of_all([line.verdict for line in judged if line.verdict is not None])


def _line(rule: Rule, row: str, found: Found) -> Line:
    figure = _figure(rule, row, found)
    return Line(
        what=_what(rule, row), printed=rule.printed, figure=figure, rule=_text(rule),
        verdict=None if figure is None or rule.kind == "shown" else _judged(rule, figure), note=rule.note,
    )  # fmt: skip


def _figure(rule: Rule, row: str, found: Found) -> Measured | None:
    """Return what a rule looks at: a figure, a difference or a ratio; None if it has not been run."""
    if not rule.measure:
        value = (found.computed or {}).get(row)  # what an earlier version has computed may lack it
        return None if value is None else _by_seed(value)
    if any(one not in found.cells for one in (row, rule.against) if one):
        return None
    own = measured(rule.measure, row, found.cells)
    if not rule.against:
        return own
    other = measured(rule.measure, rule.against, found.cells)
    if rule.ratio:
        return own.over(other)
    return other.less(own) if rule.fewer else own.less(other)


def _by_seed(value: float | Mapping[int, float]) -> Measured:
    """Return a computed figure; in a file the seeds of a table are texts."""
    if isinstance(value, Mapping):
        return Measured(by_seed={int(seed): one for seed, one in value.items()})
    return Measured(by_seed={0: value})


def _judged(rule: Rule, figure: Measured) -> Verdict:
    match rule.kind:
        case "order":
            return rules.order(figure, band=rule.band, every_seed=rule.every_seed)
        case "no loss":
            return rules.no_loss(figure, margin=rule.margin)
        case "interval":
            low, high = _ends(rule)
            nearly = rules.NEARLY_INSIDE if rule.nearly is None else rule.nearly
            return rules.interval(figure, low=low, high=high, nearly=nearly)
        case "exponent":
            holds = rules.EXPONENT_HOLDS if rule.holds is None else rule.holds
            band = holds * rules.EXPONENT_BAND / rules.EXPONENT_HOLDS
            return rules.exponent(figure, expected=rule.expected, holds=holds, band=band)
        case _:
            assert rule.kind == "computed"
            return rules.computed(figure.mean, rule.printed, truncated=rule.truncated)


def _ends(rule: Rule) -> tuple[float | None, float | None]:
    if rule.tolerance is None:
        return rule.low, rule.high
    printed = float(rule.printed)
    return printed * (1 - rule.tolerance), printed * (1 + rule.tolerance)


def _what(rule: Rule, row: str) -> str:
    if not rule.measure:
        return row
    compared = f"{row} {'over' if rule.ratio else '-'} {rule.against}" if rule.against else row
    if rule.fewer and not rule.ratio:
        compared = f"{rule.against} - {row}"
    return f"{compared}: {rule.measure}"


def _text(rule: Rule) -> str:
    """Return the rule in words; empty for what is only shown."""
    match rule.kind:
        case "order":
            seeds = " in every seed" if rule.every_seed else ""
            return f"above 0{seeds}" + (f", band {rule.band:g}" if rule.band else "")
        case "no loss":
            return f"at least {-rule.margin:g}"
        case "interval":
            return _interval_text(rule) + ("" if rule.nearly is None else f", band {100 * rule.nearly:g} %")
        case "exponent":
            holds = rules.EXPONENT_HOLDS if rule.holds is None else rule.holds
            return f"within {holds:g} of {rule.expected:g}"
        case "computed":
            return "equal, digits cut off" if rule.truncated else "equal after rounding"
        case _:
            return ""


def _interval_text(rule: Rule) -> str:
    if rule.tolerance is not None:
        return f"within {100 * rule.tolerance:g} %"
    if rule.low is None:
        return f"at most {rule.high:g}"
    return f"at least {rule.low:g}" if rule.high is None else f"{rule.low:g} to {rule.high:g}"
