"""Where a failure happened, in a user's own file. Nothing here imports torch."""

import linecache
import os
import sysconfig
import traceback
from pathlib import Path

_OWN = str(Path(__file__).parents[2])
_OTHERS = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def place_of(error: BaseException) -> str:
    """Return the file, line and function in a user's own file in which an error was raised; empty if in none.

    For instance " (late.py, line 12, in work: raise RuntimeError('boom'))".
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if os.path.isfile(frame.filename) and not frame.filename.startswith((_OWN, *_OTHERS)):
            code = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return (
                f" ({_short(frame.filename)}, line {frame.lineno}, in {frame.name}{f': {code:.100}' if code else ''})"
            )
    return ""


def inner_place_of(error: BaseException) -> str:
    """Return the file and line in which an error was raised, wherever that is, for a report of a fault."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def described(error: BaseException) -> str:
    """Return in one line the class and message of an error, and where in a user's own file it was raised."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {message}' if message else ''}{place_of(error)}"


def _short(path: str) -> str:
    """Return a path as it is seen from here, if it is below."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)
