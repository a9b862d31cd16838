"""docs/reading-the-output.md: each example prints what the page shows.

`LACONIC_REWRITE_DOCS=1 pytest tests/report/test_reading_the_output.py` writes what they print into the page. Accuracies
and wall times are not compared; columns, bytes, counts and sentences are.
"""

import contextlib
import io
import json
import os
import re
import shlex
from pathlib import Path

import pytest
import torch

import laconic
from support.command_line import laconic as command

PAGE = Path(__file__).parents[2] / "docs" / "reading-the-output.md"
REWRITE = "LACONIC_REWRITE_DOCS"
WIDTH = 130
COMMAND = re.compile(r"```\n\$ (laconic (?P<words>.+))\n(?P<output>(?:.*\n)*?)```")
CODE = re.compile(r"```python\n(?P<code>(?:.*\n)*?)```\n\n```\n(?P<output>(?:.*\n)*?)```")
KEY = re.compile(r'```json\n"(?P<key>\w+)":(?P<output>.*)\n```')
VARIABLE = re.compile(r"\d+\.\d\d%|\d+\.\d+(?=\n)")  # an accuracy; seconds, the last figure of a row

COMMANDS = [match["words"] for match in COMMAND.finditer(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(autouse=True)
def a_wide_terminal(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.chdir(tmp_path)


def compare(match, printed):
    """Compare what an example printed with the page, or write it there."""
    printed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    if os.environ.get(REWRITE):
        page = PAGE.read_text(encoding="utf-8")
        start, end = match.span("output")
        PAGE.write_text(page[:start] + printed + page[end:], encoding="utf-8")
    else:
        assert masked(printed) == masked(match["output"])


def masked(text):
    return re.sub(r" +", " ", re.sub(r"─+", "─", VARIABLE.sub("#", text)))


def example_of(words):
    return next(match for match in COMMAND.finditer(PAGE.read_text(encoding="utf-8")) if match["words"] == words)


@pytest.mark.parametrize("words", [words for words in COMMANDS if "processes" not in words])
def test_a_command_prints_what_stands_below_it(words):
    ended = command(*shlex.split(words))
    compare(example_of(words), ended.out)
    assert ended.code == (3 if "diverged" in ended.out else 0)


def test_a_sum_of_traffic_prints_what_stands_below_it():
    match = CODE.search(PAGE.read_text(encoding="utf-8"))
    names = {"torch": torch, "laconic": laconic, "cross_entropy": torch.nn.functional.cross_entropy}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(match["code"], names)
    compare(match, printed.getvalue())


@pytest.mark.slow
def test_a_command_over_processes_prints_its_table_and_counts_control_bytes_apart(tmp_path):
    words = next(words for words in COMMANDS if "processes" in words)
    compare(example_of(words), command(*shlex.split(words)).out)
    match = KEY.search(PAGE.read_text(encoding="utf-8"))
    traffic = json.loads((tmp_path / "runs/wall/summary.json").read_text(encoding="utf-8"))["traffic"]
    assert traffic[match["key"]] > 0
    if os.environ.get(REWRITE):
        page = PAGE.read_text(encoding="utf-8")
        start, end = match.span("output")
        PAGE.write_text(f"{page[:start]} {traffic[match['key']]}{page[end:]}", encoding="utf-8")


def test_the_page_names_the_keys_of_the_summary(tmp_path):
    command(*shlex.split("run -a sgd --model linear --workers 3 --batch-size 160 --epochs 1 --out out"))
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    keys = ("dense_sgd", "dense_sgd_wire_bytes_over_own", "diverged", "diverged_because", "clock", "seconds")
    assert not [key for key in keys if key not in summary or not re.search(rf'`"?{key}\b', page)]
