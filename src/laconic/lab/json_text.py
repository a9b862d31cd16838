"""JSON that every reader of JSON can read."""

import json
import math
from collections.abc import Mapping
from typing import Any

from laconic.lab.atomic import utf8


def json_text(data: Any, *, indent: int | None = 2, ascii_only: bool = False) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Return `data` as JSON with a line end. Numbers that are not finite, which JSON does not have, become null.

    Bytes of a file's name that are no text are replaced, as `utf8` does.

    With `ascii_only`, all other letters are escaped, and what is printed moves no cursor and turns no line.
    """
    text = json.dumps(_finite(data), indent=indent, allow_nan=False, ensure_ascii=ascii_only)
    text = text.replace("\x7f", "\\u007f") if ascii_only else utf8(text).decode()
    return text + "\n"


def _finite(data: Any) -> Any:  # noqa: ANN401
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
