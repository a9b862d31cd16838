"""What stands in one cell of a table: a number, a missing value, a class."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

FLOAT32_MAX = (2 - 2**-23) * 2.0**127
MISSING = frozenset(["", "?", "-", ".", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"])
"""Texts, in lower case, that stand for a value that was not measured."""
MISSING_LABELS = frozenset(["", "?", "na", "n/a", "#n/a", "<na>", "nan", "null"])
"""The same for a class, which may well be called "none"."""
_BOOLEANS = {"true": 1.0, "false": 0.0}
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")


def number_of(cell: str) -> float | None:
    """Return the number in a cell, which may be infinite, or None. True and False are 1 and 0."""
    if "_" in cell or not cell.isascii():  # float() takes 1_000 for 1000; in a data file it is more likely a name
        return None
    try:
        return float(cell)
    except ValueError:
        return _BOOLEANS.get(cell.lower())


def is_missing(cell: str) -> bool:
    """Return whether a feature's cell says that there is no value."""
    return cell.lower() in MISSING


def is_finite(value: float | None) -> bool:
    """Return whether a number is one that float32 can hold."""
    return value is not None and abs(value) <= FLOAT32_MAX


def with_decimal_point(cell: str) -> str:
    """Return a number that is written with a decimal comma with a point in its place."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell


def class_of(word: str) -> Decimal | str:
    """Return what two labels of one class have in common: the exact number, so that 1 and 1.0 are one, or the text."""
    value = number_of(word)
    if value is None or not math.isfinite(value) or word.lower() in _BOOLEANS:
        return word
    try:
        return Decimal(word)
    except InvalidOperation:  # an exponent beyond its range
        return word
