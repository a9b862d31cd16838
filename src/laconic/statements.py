"""What a user is told beside errors: statements, once each, and warnings."""

import logging
import sys
import warnings
from pathlib import Path

_LOGGER = logging.getLogger("laconic")
_PACKAGE = str(Path(__file__).parent)
_stated: set[str] = set()


class LaconicWarning(UserWarning):
    """Something is probably not what the user means, such as equal mini-batches on all ranks."""


def state_once(text: str) -> None:
    """State a fact that a user should know, once in this process, through the logger "laconic" (level WARNING).

    Nothing is wrong then, so this is no Python warning, which a user may have turned into an error. An empty text
    states nothing.
    """
    if text and text not in _stated:
        _stated.add(text)
        _LOGGER.warning(text)


def mark_stated(text: str) -> None:
    """Do not state this in this process: what runs in it has seen to it."""
    _stated.add(text)


def warn(text: str) -> None:
    """Warn of what is probably a mistake, by a `LaconicWarning` at the user's line that led here."""
    torch = sys.modules.get("torch")  # whose decorators stand between our functions
    inner = (_PACKAGE,) if torch is None else (_PACKAGE, str(Path(str(torch.__file__)).parent))
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inner):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, LaconicWarning, stacklevel=level)
