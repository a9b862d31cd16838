"""What a rank may show all others as JSON: a schema, and the reader that refuses everything else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any

from laconic.errors import WireError

Schema = Any
"""What data read from JSON must be: a type or a union of types; a range of integers; `[schema]`, a list of any length;
a tuple, a list of this length with a schema for each element; `{str: schema}`, an object with any keys; `{int: ...}`,
one whose keys are whole numbers; `{"key": schema}`, one with exactly these keys; or an `Either`.
"""


@dataclass(frozen=True)
class Either:
    """Data that fit one of two schemas."""

    one: Schema
    other: Schema


def misfit(value: object, schema: Schema, where: str = "it") -> str:
    """Return where data read from JSON differ from a schema, as a sentence; an empty text if they fit."""
    if isinstance(schema, Either):
        return misfit(value, schema.one, where) and misfit(value, schema.other, where)
    if isinstance(schema, (type, UnionType)):
        fits = type(value) in (schema.__args__ if isinstance(schema, UnionType) else (schema,))
        return "" if fits else f"{where} is {value!r:.60}; expected was {getattr(schema, '__name__', schema)}"
    if isinstance(schema, range):
        fits = type(value) is int and value in schema
        return "" if fits else f"{where} is {value!r:.60}; expected was {schema.start} .. {schema.stop - 1}"
    if isinstance(schema, dict):
        return _misfit_of_object(value, schema, where)
    if not isinstance(value, list):
        return f"{where} is {value!r:.60}; expected was a list"
    parts = schema if isinstance(schema, tuple) else schema * len(value)
    if len(parts) != len(value):
        return f"{where} has {len(value)} elements; expected were {len(parts)}"
    problems = (misfit(part, of, f"{where}[{n}]") for n, (part, of) in enumerate(zip(value, parts, strict=True)))
    return next(filter(None, problems), "")


def _misfit_of_object(value: object, schema: dict[Any, Schema], where: str) -> str:
    if not isinstance(value, dict):
        return f"{where} is {value!r:.60}; expected was an object"
    if int in schema and all(map(str.isdecimal, value)):  # keys are always texts
        schema = dict.fromkeys(value, schema[int])
    if str in schema:
        schema = dict.fromkeys(value, schema[str])
    if value.keys() != schema.keys():
        return f"{where} has the keys {', '.join(value):.60}; expected were {', '.join(map(str, schema)):.200}"
    return next(filter(None, (misfit(value[key], of, f"{where}.{key}") for key, of in schema.items())), "")


def check_sizes(sizes: Sequence[int], max_bytes: int, purpose: str) -> None:
    """Raise WireError for the rank that promises more bytes than `max_bytes`; `purpose` as for `read_gathered`."""
    for rank, size in enumerate(sizes):
        if not 0 <= size <= max_bytes:
            raise WireError(f"rank {rank}, {purpose}: it promises {size} bytes; at most {max_bytes} can belong to this")


def read_gathered(texts: Sequence[bytes], schema: Schema, purpose: str) -> list[Any]:
    """Return the data that each rank showed.

    Args:
        texts: of each rank, the JSON.
        schema: what it must fit.
        purpose: for errors, such as "for its settings".

    Raises:
        WireError: for a text that is no JSON or does not fit; it names the rank.
    """
    found = []
    for rank, text in enumerate(texts):
        try:
            value = json.loads(text)
            problem = misfit(value, schema)
        except (ValueError, RecursionError) as error:
            problem = f"it is no JSON: {error!s:.100}"
        if problem:
            raise WireError(f"rank {rank}, {purpose}: {problem}. Do all ranks run the same version and script?")
        found.append(value)
    return found
