"""What a user or a file brings, on the terminal: never an escape sequence, and never markup."""

import json
import shlex
import unicodedata

import pytest

from laconic.contract import ALGORITHMS
from support.command_line import laconic

BAD = "\x1b[31m[/]\u202e[bold]x"
SHOWN = r"\x1b[31m[/]\u202e[bold]x"
METHOD = f"""'''A page {BAD}.'''
import laconic
from dataclasses import dataclass
from laconic.algorithms.sgd import SGD
from laconic.hyperparameters import hyperparameter

@laconic.algorithm("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(SGD):
    '''Does {BAD}.'''
    source = "A paper {BAD}"
    rule: str = hyperparameter("{BAD}", "About {BAD}", choices=("{BAD}", "b"))
"""


def obeyed(text):
    """The characters of a text that a terminal obeys."""
    return {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")} - {"\n"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METHOD)
    (tmp_path / "faults.toml").write_text(f"{json.dumps(BAD)} = 1\n")
    yield tmp_path
    ALGORITHMS.pop("mine", None)


@pytest.mark.parametrize(
    "words",
    [
        "--load mine.py list", "--load mine.py list --json -", "--load mine.py show mine",
        "--load mine.py run -a mine --set rule=zBAD", "run -a BAD", "run -a sgd --set BAD=1", "run -a sgd --data BAD",
        "run -a sgd --dataset csv --data BAD", "run -a sgd --faults faults.toml", "run -a sgd --faults BAD",
        "run --config faults.toml", "run -a sgd --BAD", "run -a sgd --epochs BAD", "run BAD", "BAD", "show BAD",
        "reproduce BAD", "timeline BAD", "timeline ring --out BAD", "timeline ring --latency BAD",
        "plan --params BAD --bandwidth 1Mbit --workers 2", "plan --trace BAD --bandwidth 1Mbit", "--load BAD list",
        "bench compare BAD BAD", "compare sgd BAD", "compare sgd --lr-of BAD=1",
    ],
)  # fmt: skip
def test_no_command_passes_on_what_a_terminal_obeys(folder, words):
    ended = laconic(*(word.replace("BAD", BAD) for word in shlex.split(words)))
    assert not obeyed(ended.out + ended.err)
    assert "Traceback" not in ended.err
    if "json" not in words:
        assert SHOWN in ended.out + ended.err, "nothing of it is taken for markup"
