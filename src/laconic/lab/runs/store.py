"""Finished results by folder: a method of a comparison, a task of a published table. From them a command is continued.

A folder has a file `summary.json` once its result is finished, with the settings that the result was made with and its
figures. It is written as a whole, so that a killed process leaves all of it or nothing.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from laconic.errors import Named, OptionError
from laconic.lab.atomic import write_text
from laconic.lab.json_text import json_text

FILE = "summary.json"
_SETTINGS = "settings"


def keep(folder: Path, settings: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Keep a finished result in `folder`, which is made if missing.

    Raises:
        OSError: It cannot be written. The error names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json_text({_SETTINGS: settings, **figures}))


def finished(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the figures of the finished result in `folder`; None if there is none.

    Raises:
        OptionError: It was made with other settings, and the first difference is named; or the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        data = dict(json.loads(file.read_text(encoding="utf-8")))
        made_with = dict(data.pop(_SETTINGS))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(file, error) from None
    refuse_other_settings(file, made_with, settings)
    return data


def damaged(file: Path, error: Exception) -> OptionError:
    """Return the error for a file that cannot be continued from."""
    return OptionError(
        Named("resume", True), f": {file} is not what laconic wrote ({error!r}); remove it to run this again"
    )


def refuse_other_settings(file: Path, made_with: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to continue what was made with other settings than these.

    Raises:
        OptionError: It names the file and the first difference.
    """
    before, now = dict(_flat(made_with)), dict(_flat(json.loads(json_text(settings))))
    for name in dict.fromkeys([*now, *before]):
        if name in before and name in now and before[name] == now[name]:
            continue
        was, wanted = (repr(one[name]) if name in one else "not set" for one in (before, now))
        raise OptionError(
            Named("resume", True), f": {file} was made with another {name}: {was} there, {wanted} now; give the same "
            "options, ", Named("overwrite", True), " to begin anew, or another folder",
        )  # fmt: skip


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values of nested tables by dotted names."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
