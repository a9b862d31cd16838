"""What the commands print, letter for letter, at three widths of a terminal and without one.

The files in `tests/cli/screens/` hold it. `LACONIC_REWRITE_GOLDEN=1` writes them anew; read what has changed.
"""

import os
import re
from pathlib import Path

import pytest

from support.command_line import laconic

pytestmark = pytest.mark.slow

SCREENS = Path(__file__).parent / "screens"
REWRITING = os.environ.get("LACONIC_REWRITE_GOLDEN") == "1"
WIDTHS = (60, 80, 200, None)
"""Columns of the terminal; None is no terminal."""

SMALL = "--model linear --epochs 1 --batch-size 300"
NETWORK = "--params 25M --workers 8 --bandwidth 1Gbit --no-measure"
COMMANDS = {
    "help": "-h",
    **{f"help-{name}": f"{name} -h" for name in ("list", "show", "run", "compare", "report", "check", "reproduce",
                                                 "plan", "timeline", "bench")},
    **{f"help-bench-{name}": f"bench {name} -h" for name in ("kernels", "step", "wire", "simulate", "scale",
                                                             "compare")},
    "list": "list",
    "show-ssgd-mv": "show ssgd-mv",
    "show-compskip": "show compskip --set skip=random",
    "show-sgd": "show sgd",
    "accounting-compskip": "show compskip --accounting",
    "accounting-sgd": "show sgd --accounting",
    "run-sgd": f"run -a sgd {SMALL}",
    "run-dsgd": f"run -a dsgd {SMALL}",
    "run-slow-link": f"run -a ec-sgd {SMALL} --bandwidth 10Mbit --latency 20ms --compute 50ms",
    "run-diverged": "run -a sgd --model linear --epochs 2 --batch-size 300 --lr 1e30",
    "run-quiet": f"run -a sgd {SMALL} --quiet",
    "compare": f"compare sgd compskip ssgd-mv signsgd-mv {SMALL}",
    "compare-slow-link": f"compare sgd compskip {SMALL} --bandwidth 10Mbit",
    "plan": f"plan compskip sgd {NETWORK} --latency 5ms --compute 100ms",
    "plan-of-little": f"plan compskip sgd {NETWORK}",
    "reproduce-list": "reproduce --list",
    "timeline-list": "timeline --list",
    "timeline-ring": "timeline ring --workers 3",
}  # fmt: skip

BY_NIGHT = ("plan-of-little",)
"""A plan takes as long as all other screens together, and there is another one."""

TO_PASTE = ("error: ", "source: ", "paper: ", "Python: ", "command: ", "  laconic.", "  model.")
"""How lines begin that no terminal breaks, since they are searched for or copied."""
PROGRESS = re.compile(r"[\w-]+: epoch \d+/\d+, round ")
"""How a line of progress begins where there is no terminal: it goes to a log."""

ERRORS = (
    "lst", "Show sgd", "wire", "xyzzy", "--versoin", "--epochs 3 run", "run", "run sgd", "run -a SGD",
    "run -a sgd --epoch 3", "run -a sgd --Epochs 3", "run -a sgd --epochs", "run -a sgd --epochs two",
    "run -a sgd --epochs 0",
    "run -a sgd --lr 0.1 --lr 0.2", "run -a sgd --lr 0", "run -a sgd --lr fast", "run -a sgd --dataset MNIST",
    "run -a sgd --dataset mnist", "run -a sgd --dataset mnist --data /no/such/folder", "run -a sgd --layout AllReduce",
    "run -a sgd --layout sharded --workers 0", "run -a sgd --bandwidth 100", "run -a sgd --latency 10",
    "run -a sgd --record-times", "run -a sgd --record-times=yes", "run -a sgd --out /dev/null/runs",
    "run -a sgd --json /dev/null/x.json", "run -a sgd --overwrite", "run -a sgd --warm-up-from 0.1",
    "run -a sgd --set density=0.1", "run -a compskip --set Keep=0.1", "run -a compskip --set keep=2",
    "run -a compskip --set keep", "run -a compskip --set skip=RANDOM", "run -a sgd --faults /no/such.toml",
    "run -a sgd --config /no/such.toml", "run -a sgd --load mine.py", "run -a sgd --batch-size 5000",
    "compare", "compare sgd sgd", "compare sgd Dropsign", "compare sgd --set keep=0.1", "compare sgd --lr-of sgd=fast",
    "show", "show Ssgd_MV", "show sgd lag", "show compskip --set keep=2", "reproduce SASG", "plan sgd",
    "plan sgd --params 25M --workers 8", "plan sgd --params many --workers 8 --bandwidth 1Gbit", "timeline rings",
    "timeline ring --out ring.gif", "bench kernls", "bench wire --density 2", "bench compare /no/a.json /no/b.json",
    "check",
)  # fmt: skip


def screen(monkeypatch, line: str, width: int | None) -> str:
    """What one command prints, on standard output and then on standard error."""
    monkeypatch.setattr(os, "get_terminal_size", no_terminal)
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    ended = laconic(*line.split())
    text = "".join(f"{printed}\n".replace("\n\n", "\n") if printed else "" for printed in (ended.out, ended.err))
    code = f"(exit code {ended.code})\n" if ended.code else ""
    return masked("\n".join(part.rstrip() for part in f"$ laconic {line}\n{text}{code}".split("\n")))


def no_terminal(*_: int) -> os.terminal_size:
    raise OSError("no terminal")


def masked(text: str) -> str:
    """Text without what another machine, version, or a method that another test has registered would change."""
    text = re.sub(r"(known:|one of) asgd, [a-z, -]+(; did you mean [^?]*\?)?", r"\1 METHODS\2", text)
    return re.sub(r"at most \d+, this machine's cores", "at most CORES, this machine's cores", text)


def check(name: str, text: str) -> None:
    file = SCREENS / f"{name}.txt"
    if REWRITING:
        file.write_text(text, encoding="utf-8")
    assert file.exists(), f"LACONIC_REWRITE_GOLDEN=1 writes {file.name}"
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly) if name in BY_NIGHT else name for name in COMMANDS]
)
def test_a_screen_is_as_it_was_reviewed(monkeypatch, name):
    parts = []
    for width in WIDTHS:
        shown = screen(monkeypatch, COMMANDS[name], width)
        if width is not None:
            lines = [part for part in shown.split("\n")[1:] if not (part.startswith(TO_PASTE) or PROGRESS.match(part))]
            long = [part for part in lines if len(part) > width]
            assert not long, f"longer than {width} columns: {long}"
        parts.append(f"=== {'no terminal' if width is None else f'{width} columns'}\n{shown}")
    check(name, "\n".join(parts))


def test_the_errors_are_as_they_were_reviewed(monkeypatch):
    shown = [screen(monkeypatch, line, None) for line in ERRORS]
    check("errors", "\n".join(shown))
    for line, text in zip(ERRORS, shown, strict=True):
        assert text.count("\n") == 3, f"{line}: an error is one line"
        assert "\nerror: " in text
        assert "(exit code 2)" in text


def test_no_screen_is_left_over():
    assert {file.stem for file in SCREENS.glob("*.txt")} == {*COMMANDS, "errors"}
