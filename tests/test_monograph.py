"""docs/monograph.md: a row for each section of the monograph, and commands that exist."""

import re
from pathlib import Path

from laconic.reproduce import items
from support.command_line import laconic

PAGE = (Path(__file__).parents[1] / "docs" / "monograph.md").read_text(encoding="utf-8")
SECTIONS = re.findall(  # of its table of contents, without those of chapter 6
    r"\S+",
    "1 1.1 1.1.1 1.1.2 1.1.3 1.2 1.2.1 1.2.2 1.2.3 1.3 1.3.1 1.3.2 1.3.3 1.3.4 2 2.1 2.1.1 2.1.2 2.2 2.3 "
    "3 3.1 3.1.1 3.1.2 3.2 3.3 3.4 4 4.1 4.2 5 5.1 5.2 5.2.1 5.2.2 6",
)
FIGURES = {"1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "2.1", "2.2", "2.3", "3.1", "3.2", "3.3", "3.4", "3.5",
           "4.1", "4.2", "5.1", "5.2", "5.3"}  # fmt: skip
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]


def test_every_section_and_every_figure_has_its_row():
    rows = [row for row in ROWS if re.fullmatch(r"\d[\d.]*", row[0])]
    assert [row[0] for row in rows] == SECTIONS
    assert all(len(row) == 5 for row in rows)
    named = {
        number
        for row in rows
        for part in re.findall(r"Fig\. ([^;]*)", row[3])
        for number in re.findall(r"\d\.\d", part)
    }
    assert named == FIGURES


def test_the_timelines_and_items_that_it_names_exist():
    listed = laconic("timeline", "--list").out.split()
    assert not [name for name in re.findall(r"laconic timeline (\w[\w.-]*\w)", PAGE) if name not in listed]
    known = items.items()
    assert not [name for name in re.findall(r"laconic reproduce (003[\w.-]*\w)", PAGE) if name not in known]
