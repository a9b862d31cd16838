"""Quantities as people type and read them: "100Mbit", "10 ms", "1.23 MB".

Prefixes are decimal: 1 KB is 1000 bytes. Case does not matter, except for a lone b: b is a bit, B a byte, so that
100Mb/s and 100Mbps are an eighth of 100MB/s.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

# Lengths are bounded: no text, however hostile, takes long to parse or overflows a float.
_NUMBER = r"(?P<number>[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?)"
_PER_SECOND = r"(?:/(?i:s|sec)|(?i:ps))?"
# ASCII only: otherwise "(?i:s)" would match the long s of old prints, which no table below has.
_BANDWIDTH = re.compile(_NUMBER + r"\s*(?P<prefix>[kKmMgGtT]?)(?P<unit>[bB]|(?i:bits?|bytes?))" + _PER_SECOND, re.ASCII)
# The micro sign and the Greek mu look alike, and keyboards have one or the other.
_SIZE = re.compile(_NUMBER + r"\s*(?P<prefix>[kKmMgGtT]?)(?:B|(?i:bytes?))", re.ASCII)
_DURATION = re.compile(_NUMBER + r"\s*(?P<unit>(?i:ns|us|\u00b5s|\u03bcs|ms|s|min|h))", re.ASCII)

_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SECONDS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 10**3),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
}


def bandwidth(text: str) -> float:
    """Return the bytes per second in `text`, such as "100Mbit", "1 Gbit/s", "100Mbps" or "12.5 MB/s".

    Raises ValueError if `text` is no bandwidth, or not above 0.
    """
    match = _BANDWIDTH.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"bandwidth {text!r} must be a number and a unit per second: bit, Kbit, Mbit, Gbit, B, KB, MB, GB "
            '(examples: "100Mbit", "1Gbit/s", "12.5 MB/s")'
        )
    unit = match["unit"]
    in_bits = unit == "b" or unit.lower().startswith("bit")
    number = _above_zero("bandwidth", text, match["number"], 'such as "1Mbit"')
    return float(number * _PREFIXES[match["prefix"].lower()] / (8 if in_bits else 1))


def duration(text: str) -> float:
    """Return the seconds in `text`, such as "10ms", "250 us", "1.5s" or "2min".

    Raises ValueError if `text` is no duration, or not above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"duration {text!r} must be a number and a unit: ns, us, ms, s, min or h "
            '(examples: "10ms", "250us", "1.5s", "2min")'
        )
    unit = match["unit"].lower().replace("\u00b5", "u").replace("\u03bc", "u")
    number = _above_zero("duration", text, match["number"], "for none, leave the setting out")
    return float(number * _SECONDS[unit])


def duration_or_zero(text: str) -> float:
    """Return the seconds in `text`, as `duration` does, but "0", "0s" and "0ms" too."""
    return 0.0 if text.strip() in ("0", "0s", "0ms") else duration(text)


def size(text: str) -> int:
    """Return the number of bytes in `text`, such as "4MB", "1.5 kB" or "100 bytes".

    Raises ValueError if `text` is no size, not above 0, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'size {text!r} must be a number and a unit: B, KB, MB, GB or TB (examples: "4MB", "100 B")')
    n_bytes = _above_zero("size", text, match["number"], 'such as "1MB"') * _PREFIXES[match["prefix"].lower()]
    if n_bytes.denominator != 1:
        raise ValueError(f"size {text!r} must be a whole number of bytes")
    return int(n_bytes)


def bytes_text(n_bytes: float) -> str:
    """Return `n_bytes` as text with three digits and decimal prefixes: "999 B", "1.23 MB".

    It may be a mean, hence a float. Raises ValueError if it is negative or not finite.
    """
    _check_printable("bytes_text: n_bytes", n_bytes)
    rounded = _three_digits(n_bytes)
    if rounded < 1000:
        return f"{rounded:g} B"
    return _in_largest(n_bytes, (("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15)))


def seconds_text(seconds: float) -> str:
    """Return `seconds` as text with three digits: "250 us", "1.50 ms", "12.3 s", "2.00 min".

    Raises ValueError if `seconds` is negative or not finite.
    """
    _check_printable("seconds_text: seconds", seconds)
    if seconds == 0:
        return "0 s"
    units = (("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0))
    return _in_largest(seconds, units)


def _above_zero(what: str, text: str, number: str, remedy: str) -> Fraction:
    # A fraction, not a float: 3 ms must be the float 0.003, and the last bit of 3 * 0.001 differs.
    value = Fraction(number)
    if value <= 0:
        raise ValueError(f"{what} {text!r} must be above 0 ({remedy})")
    return value


def _check_printable(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value} must be at least 0 and finite")


def _three_digits(value: float) -> float:
    return float(f"{value:.2e}")


def _in_largest(value: float, units: tuple[tuple[str, float], ...]) -> str:
    # Rounded before the unit is chosen: 999,999 bytes are 1.00 MB, not 1000 KB.
    name, scale = units[0]
    for next_name, next_scale in units[1:]:
        if _three_digits(value / next_scale) < 1:
            break
        name, scale = next_name, next_scale
    rounded = _three_digits(value / scale)
    n_decimals = 2 if rounded < 10 else 1 if rounded < 100 else 0
    return f"{rounded:.{n_decimals}f} {name}"
