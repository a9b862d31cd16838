"""Compares two result files of one bench, row by row."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMES = ("s", "copies", "times")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row that both files have."""

    name: tuple[str, ...]
    unit: str
    before: float
    """Median in the first file."""
    after: float
    """Median in the second file."""
    verdict: str
    """"faster", "slower", "less" or "more"; empty if the quartile ranges overlap."""

    @property
    def ratio(self) -> float | None:
        """The second median over the first; None if the first is 0."""
        return self.after / self.before if self.before else None


@dataclass(frozen=True, kw_only=True)
class BenchComparison:
    """The comparison of two result files."""

    bench: str
    changes: tuple[Change, ...]
    """The rows that both files have."""
    only_before: tuple[str, ...]
    """Names of rows that only the first file has."""
    only_after: tuple[str, ...]
    """Names of rows that only the second file has."""
    differences: tuple[str, ...]
    """Differences of settings, machine and versions."""


def compare_files(before: Path, after: Path) -> BenchComparison:
    """Compare two result files.

    Raises:
        ValueError: A file is not a bench's result, or the files are of different benches.
    """
    one, other = _read(before), _read(after)
    if one["bench"] != other["bench"]:
        raise ValueError(
            f"{before} is of `bench {one['bench']}` and {after} of `bench {other['bench']}`; "
            "give two files of one bench"
        )
    names = list(dict.fromkeys([*one["names"], *other["names"]]))
    before_rows, after_rows = _by_name(one["rows"], names), _by_name(other["rows"], names)
    return BenchComparison(
        bench=one["bench"],
        changes=tuple(_change(name, row, after_rows[name]) for name, row in before_rows.items() if name in after_rows),
        only_before=tuple(" ".join(name) for name in before_rows if name not in after_rows),
        only_after=tuple(" ".join(name) for name in after_rows if name not in before_rows),
        differences=tuple(_differences(one, other)),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); give a file that `laconic bench ... --json` wrote") from None
    if not isinstance(data, dict) or not {"bench", "names", "rows", "settings", "versions", "machine"} <= set(data):
        raise ValueError(f"{path} is not a bench's result; give a file that `laconic bench ... --json` wrote")
    return data


def _by_name(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[tuple[str, ...], Mapping[str, Any]]:
    return {tuple(f"{row[key]:g}" if isinstance(row[key], float) else str(row[key])
                  for key in names if row.get(key) not in (None, "")): row for row in rows}  # fmt: skip


def _change(name: tuple[str, ...], before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    (low, high), (low_then, high_then) = before["quartiles"], after["quartiles"]
    less, more = ("faster", "slower") if before["unit"] in _TIMES else ("less", "more")
    verdict = less if high_then < low else more if low_then > high else ""
    return Change(name=name, unit=before["unit"], before=before["median"], after=after["median"], verdict=verdict)


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the differences of settings, machine and versions, which limit what a ratio means."""
    return [
        f"{kind} {key}: {one[kind].get(key)} and {other[kind].get(key)}"
        for kind in ("settings", "machine", "versions")
        for key in one[kind] | other[kind]
        if one[kind].get(key) != other[kind].get(key)
    ]
