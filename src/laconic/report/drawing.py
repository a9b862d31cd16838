"""Pictures as PNG, SVG or PDF: equal figures give equal bytes, whatever matplotlib's settings and backend here are."""

import contextlib
import importlib
import io
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from laconic.report.visible import for_matplotlib, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colors for color-blind readers and print (Okabe and Ito). 7 colors and 4 dashes give 28 different lines, and 9 markers
# let lines of one color differ in two ways.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = ("-", "--", "-.", (0, (1, 1.2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_MAX_MARKERS = 8  # of one line

_METADATA: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_SETTINGS = {
    "svg.hashsalt": "laconic",  # otherwise its names are random
    "pdf.fonttype": 42,  # letters that can be searched, and that journals take
    "hatch.linewidth": 0.5,
}
_SMALL = {
    "svg.fonttype": "none",  # letters as letters: as shapes they are half of the file
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the file repeats them at each text
}
# Digits of an attribute, of which a tenth of a point is seen, and indentation. Text between tags stays.
_MORE_THAN_IS_SEEN = re.compile(rb"(?<=\d\.\d)\d{2,}(?![^<>]*</)|(?<=\n) +")


def picture_bytes(
    size_in: tuple[float, float], ending: str, title: str, draw: Callable[["Figure"], None], *, small: bool = False
) -> bytes:
    """Return a picture.

    Args:
        size_in: Width and height in inches.
        ending: One of `laconic.lab.defaults.PICTURE_ENDINGS`, which says what the bytes are.
        title: The title in the file's own data.
        draw: Draws on an empty figure.
        small: Whether an SVG is to be small, for files that are kept with a page: its text then needs a font.
    """
    matplotlib = _matplotlib()
    from matplotlib.figure import Figure

    ending = ending.lower()
    written = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a letter that no font here has
        matplotlib.rcdefaults()  # a user's own file may ask for TeX, or for white lines on white
        matplotlib.rcParams.update(_SETTINGS | (_SMALL if small else {}))
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure)
        metadata = {"Title": title} | _METADATA.get(ending, {})
        figure.savefig(written, format=ending.removeprefix("."), dpi=110, metadata=metadata)
    data = written.getvalue()
    return _MORE_THAN_IS_SEEN.sub(b"", data).replace(b" \nL ", b"L") if small and ending == ".svg" else data


def load() -> None:
    """Import what draws, ahead of the first picture."""
    _matplotlib()
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"):
        importlib.import_module(name)


def line_style(number: int, n_points: int = 0) -> dict[str, Any]:
    """Return how the line of this number is picture_bytes; with `n_points`, markers on up to eight of its points."""
    style: dict[str, Any] = {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "linewidth": 1.6,
    }
    if n_points:
        every = -(-n_points // _MAX_MARKERS)
        style |= {
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": 5,
            "markevery": (-1 % n_points % every, every),
        }
    return style


def wrapped(text: str, letters: int) -> str:
    """Return a text as matplotlib shows it, in lines of at most so many letters."""
    return "\n".join(for_matplotlib(line) for line in textwrap.wrap(visible(text), letters))


def plain_axes(axes: "Axes") -> None:
    """Draw a faint grid and no box."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _matplotlib() -> Any:  # noqa: ANN401 - a module
    """Import matplotlib, whatever backend the environment asks for: it is for windows, and may not be there."""
    asked = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    if "matplotlib" not in sys.modules:  # it says at length where it keeps its fonts if there is no home folder
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        matplotlib = importlib.import_module("matplotlib")
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = asked  # as matplotlib would have it, for the user's own pictures
    return matplotlib
