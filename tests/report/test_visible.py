"""Names as text, whatever characters they hold."""

import io
import re
import unicodedata
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import laconic
from laconic.report.terminal import terminal
from laconic.report.visible import for_matplotlib, visible, visible_lines
from support.inputs import over_inputs

SOURCES = Path(laconic.__file__).parent

HOSTILE = [
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\link", "a\rb", "a\nb", "a\tb", "\x00", "\x7f", "\x9b31m",
    "\u202eevil", "\u2066x\u2069", "\u200f", "\ufeff", "\u2028", "\u2029", "\x85", "\udcff", "\U000e0041", "a\x08b",
]  # fmt: skip


@over_inputs("text", HOSTILE)
def test_nothing_that_moves_the_cursor_or_turns_the_line_is_left(text):
    shown = visible(text)
    assert shown.isprintable()
    assert "\\" in shown
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "text", ["sgd", "données d'été", "方法 一", "قائمة", "50 % [bold] $x_1$ <b>&", "a\u3000b", "C:\\new"]
)
def test_letters_of_any_script_stay_as_they_are(text):
    assert visible(text) == text


@pytest.mark.slow
def test_every_character_that_is_shown_raw_is_one_to_be_seen():
    for code in range(0x110000):
        shown = visible(chr(code))
        kind = unicodedata.category(shown[0])
        assert len(shown) > 1 or not (kind[0] == "C" or kind in ("Zl", "Zp"))


def test_lines_of_our_own_messages_stay_lines():
    assert visible_lines("first\nsecond \x1b[1m") == "first\nsecond \\x1b[1m"


def test_matplotlib_shows_names_letter_for_letter():
    from matplotlib.figure import Figure

    for name in ("$x_{$", "a $x^2$ b", r"\$5", r"a\frac", "100% $", "x\x1b$y$"):
        text, is_math = Figure().text(0, 0, for_matplotlib(name))._preprocess_math(for_matplotlib(name))
        assert (text, bool(is_math)) == (visible(name), False)
    assert not for_matplotlib("_hidden").startswith("_")


@pytest.fixture
def printed():
    console = terminal()
    console.file = io.StringIO()
    console._width = 80
    return console


@pytest.mark.parametrize(
    "name", ["[bold]x", "a[/]b", "[link=http://x]y", ":smile:", "[red]q.html", "\x1b[31m", "\u202ex"]
)
def test_no_name_is_markup_in_a_line_a_table_or_a_progress_bar(printed, name):
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    for shown in (name, Text(name), table):
        printed.print(shown)
    bars = Progress(console=printed, disable=False)
    written = printed.file.getvalue()
    assert written.count(visible(name)) >= 5
    assert "\x1b" not in written
    assert "\u202e" not in written
    assert bars.console is printed


def test_the_terminal_keeps_its_own_styles(printed):
    printed._color_system = None
    styled = terminal()
    styled.file = io.StringIO()
    styled._force_terminal = True
    with styled.capture() as captured:
        styled.print(Text("bold", style="bold"))
    assert "bold" in captured.get()


def test_nothing_prints_but_through_the_terminal():
    """Another console would read names as markup, and pass on their escape sequences."""
    for path in SOURCES.rglob("*.py"):
        if path.name != "terminal.py":
            text = path.read_text()
            assert not re.search(r"\b(Console|from_markup|render_markup)\(", text), path
            assert not re.search(r"(TextColumn|console\.print)\([^)]*\"\[", text), path
