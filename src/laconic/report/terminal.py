"""The terminal: what is printed there is text, without rich's markup, emoji codes or control characters in it."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from laconic.report.visible import visible_lines


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


def terminal(*, stderr: bool = False) -> Console:
    """Return the console to print to. Styles are given by `Text` and `style`, since texts are not read as markup."""
    return _Terminal(stderr=stderr, markup=False, emoji=False, highlight=False)
