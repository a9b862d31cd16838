"""The terminal: what is printed there is text, without rich's markup, emoji codes or control characters in it."""

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from laconic.report.visible import visible_lines

_UNLIMITED = 10_000
"""The columns of an output that is no terminal: a file and a pipe have no edge."""
_OF_A_DRAWING = 80


class _Terminal(Console):
    """A console on which names stay names, in a table, a line or a progress bar."""

    def render_str(self, text: str, **how: Any) -> Text:  # noqa: ANN401 - rich's own
        """Return a text made visible before it is measured, so that tables have room for it."""
        return super().render_str(visible_lines(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of a renderable, with all in them visible. Rich's own cursor movements remain."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or text.isprintable() else Segment(visible_lines(text), style)


def terminal(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return the console to print to. Styles are given by `Text` and `style`, since texts are not read as markup.

    It is as wide as COLUMNS says, or else as the terminal. Without either nothing limits it, so a table in a file or a
    pipe has all its columns.

    Args:
        stderr: Whether it is that of standard error.
        quiet: Whether what is printed to it is dropped.
    """
    console = _Terminal(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        console.width = int(columns)
    elif not console.is_terminal:
        console.width = _UNLIMITED
    return console


def drawing_width(console: Console) -> int:
    """Return the columns for a drawing that takes any width: 80 where nothing limits it."""
    return _OF_A_DRAWING if console.width == _UNLIMITED else console.width
