"""A fault plan as TOML: written, and read as strictly as a command line. Every fault of a file has its line."""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import tomli_w

from laconic.faults.events import Event, PlanError, factor_of
from laconic.hyperparameters import near_misses

_TABLES = ("stragglers", "slow_links")
_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


P = TypeVar("P")


def read_plan(kind: type[P], text: str) -> P:
    """Return the plan, an object of class `kind`, in a text.

    Raises:
        PlanError: as `FaultPlan.from_toml` says.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(_not_toml(str(error), text)) from None
    try:
        plan = _built(kind, data)
        _check_events(plan)
        _check_effects(plan)
    except PlanError as error:
        raise located(error, text) from None
    return plan


def located(error: PlanError, text: str) -> PlanError:
    """Return an error about the plan in `text` with the line to which it refers."""
    if not error.at:
        return error
    return PlanError(f"faults: line {line_of(text, error.at)}: {str(error).removeprefix('faults: ')}", *error.at)


def plan_text(plan: Any) -> str:  # noqa: ANN401 - a dataclass that stands above this file
    """Return a plan as TOML, without fields that have their default values."""
    default = type(plan)()
    data: dict[str, Any] = {}
    for item in dataclasses.fields(plan):
        value = getattr(plan, item.name)
        if value == getattr(default, item.name):
            continue
        if isinstance(value, Mapping):
            data[item.name] = {str(worker): factor for worker, factor in value.items()}
        elif item.name == "events":
            given = [dataclasses.asdict(event) for event in plan.events]
            data["event"] = [{k: v for k, v in event.items() if v is not None} for event in given]
        else:
            data[item.name] = list(value) if isinstance(value, tuple) else value
    return tomli_w.dumps(data)


# --- values -----------------------------------------------------------------------------------------


def _built(kind: type[P], data: Mapping[str, Any]) -> P:
    """Return the plan, each of whose values is checked by itself, so that a wrong one is found."""
    known = [item.name for item in dataclasses.fields(kind) if item.name != "events"] + ["event"]  # type: ignore[arg-type]
    fields: dict[str, Any] = {}
    for key, value in data.items():
        if key == "event":
            fields["events"] = _events(value)
            continue
        if key not in known:
            raise PlanError(f"unknown key {key!r}; known: {', '.join(known)}{near_misses(key, known)}", key)
        fields[key] = _by_worker(key, value) if key in _TABLES else value
        if key == "rescale" and not isinstance(value, list):
            raise PlanError(f"rescale={value!r} must be two factors, such as [0.001, 1000.0]", key)
        try:
            kind(**{key: fields[key]})
        except (TypeError, ValueError) as error:
            raise PlanError(str(error), key) from None
    return kind(**fields)


def _by_worker(name: str, table: Any) -> dict[int, float]:  # noqa: ANN401
    """Return the table with integer keys; TOML's keys are strings."""
    if not isinstance(table, dict):
        raise PlanError(f"{name}={table!r} must be a table of factors by worker, such as {{ 2 = 4.0 }}", name)
    factors: dict[int, float] = {}
    for worker, factor in table.items():
        if not (worker.isascii() and worker.isdecimal() and len(worker) < 19):
            raise PlanError(f"{name}: worker {worker!r} must be a whole number of at least 0", name, worker)
        if int(worker) in factors:
            raise PlanError(f"{name}: worker {int(worker)} is named twice; leave one of them", name, worker)
        try:
            factors[int(worker)] = factor_of(f"{name}: the factor of worker {int(worker)}", factor)
        except (TypeError, ValueError) as error:
            raise PlanError(str(error), name, worker) from None
    return factors


def _events(tables: Any) -> tuple[Event, ...]:  # noqa: ANN401
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PlanError("events are written as [[event]] tables with round, worker and kind", "event")
    known = [item.name for item in dataclasses.fields(Event)]
    events: list[Event] = []
    for number, table in enumerate(tables):
        for key in table:
            if key not in known:
                raise PlanError(
                    f"event: unknown key {key!r}; known: {', '.join(known)}{near_misses(key, known)}",
                    "event", number, key,
                )  # fmt: skip
        missing = [name for name in ("round", "worker", "kind") if name not in table]
        if missing:
            raise PlanError(f"an event has no {missing[0]}; it needs round, worker and kind", "event", number)
        try:
            events.append(Event(**table))
        except (TypeError, ValueError) as error:
            wrong = sorted((str(error).find(f"{key}="), key) for key in table if f"{key}=" in str(error))
            raise PlanError(str(error), "event", number, *[key for _, key in wrong[:1]]) from None
    return tuple(events)


# --- values together --------------------------------------------------------------------------------


def _check_events(plan: Any) -> None:  # noqa: ANN401
    """Refuse an event that is there twice, or that cannot come because of another."""
    crashes: dict[int, list[tuple[int, int]]] = {}
    for number, event in enumerate(plan.events):
        if event.kind == "crashed":
            crashes.setdefault(event.worker, []).append((number, event.round))
    before: dict[tuple[int, int], list[Event]] = {}
    for number, event in enumerate(plan.events):
        if event.kind != "crashed":
            others = before.setdefault((event.round, event.worker), [])
            _check_packet(event, others, number)
            others.append(event)
        for other, start in crashes.get(event.worker, ()):
            is_earlier = start < event.round or event.kind != "crashed" or other < number
            if other != number and start <= event.round < start + plan.crash_rounds and is_earlier:
                what = "crashes" if event.kind == "crashed" else f"has a packet that is {event.kind!r}"
                raise PlanError(
                    f"event of round {event.round}: worker {event.worker} {what} while it is down, in rounds {start} "
                    f".. {start + plan.crash_rounds - 1} (crash_rounds={plan.crash_rounds}); move or remove one of the "
                    "events", "event", number,
                )  # fmt: skip


def _check_packet(event: Event, others: Iterable[Event], number: int) -> None:
    """Refuse a second fault of one packet."""
    for other in others:
        if None in (event.exchange, other.exchange) or event.exchange == other.exchange:
            what = f"{event.kind!r} twice" if event.kind == other.kind else f"{other.kind!r} and {event.kind!r}"
            raise PlanError(
                f"event of round {event.round}: one packet of worker {event.worker} is {what}, and only one fault "
                "comes; leave one of the events, or name different exchanges", "event", number,
            )  # fmt: skip


def _check_effects(plan: Any) -> None:  # noqa: ANN401
    """Refuse the length of crashes and the factor of slow workers where there are none."""
    if plan.crash_rounds != 1 and not plan.crashed and not any(event.kind == "crashed" for event in plan.events):
        raise PlanError(
            f"crash_rounds={plan.crash_rounds} has no effect, since no worker crashes; set `crashed`, add an event of "
            "kind 'crashed', or leave it out", "crash_rounds",
        )  # fmt: skip
    if plan.straggle_factor != 4.0 and not plan.straggle:
        raise PlanError(
            f"straggle_factor={plan.straggle_factor} has no effect, since no worker straggles by chance; set "
            "`straggle`, or leave it out", "straggle_factor",
        )  # fmt: skip


# --- lines ------------------------------------------------------------------------------------------


def _not_toml(message: str, text: str) -> str:
    found = _TOML_PLACE.search(message)
    what = message[: found.start()] if found else message
    line, column = found.groups() if found and found[1] else (text.count("\n") + 1, None)
    place = f"line {line}" + (f", column {column}" if column else "")
    return f"faults: {place}: not TOML: {what}; lines are `key = value`, `[table]` or `[[event]]`"


def line_of(text: str, at: tuple[str | int, ...]) -> int:
    """Return the line, from 1, of a key of a TOML text, or of the table in which it is; 1 if it is not found.

    Args:
        text: A text that is TOML.
        at: A key; a table and a key; or an array of tables, a number from 0, and perhaps a key.
    """
    table = str(at[0])
    number = at[1] if len(at) > 1 and isinstance(at[1], int) else None
    key = at[-1] if isinstance(at[-1], str) and len(at) > 1 else None
    inside, count, best = False, -1, 0
    for line, words in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(words):
            name = header[1].strip("\"'")
            count += name == table
            inside = name == table and (number is None or count == number)
            best = line if inside else best
        elif inside and key is not None and _has_key(words, key):
            return line
        elif count < 0 and not best and _has_key(words, table):
            best = line  # the key itself, or an inline or dotted table
            if number is not None or (key is not None and not re.search(rf"\b{re.escape(key)}\b", words)):
                return _inline_line(text, line, number)
    return best or 1


def _has_key(line: str, key: str) -> bool:
    return re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line) is not None


def _inline_line(text: str, start: int, number: int | None) -> int:
    """Return the line on which the n-th inline table of an array begins that starts on line `start`."""
    left = number or 0
    for line, words in enumerate(text.splitlines()[start - 1 :], start=start):
        left -= words.count("{")
        if left < 0:
            return line
    return start
