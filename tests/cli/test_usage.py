"""Mistakes in the form of a command line: one line, with what was typed and the form that is wanted."""

import pytest
from typer.testing import CliRunner

from laconic.cli.app import app
from support.command_line import laconic

MISTAKES = {
    "an unknown command": (("lst",), "unknown command 'lst'; did you mean list?"),
    "a command in capitals": (("Show", "sgd"), "unknown command 'Show'; did you mean show?"),
    "a command of a group": (("wire",), "unknown command 'wire'; did you mean bench wire?"),
    "a command like no other": (("xyzzy",), "unknown command 'xyzzy'; `laconic --help` lists the commands"),
    "an option in capitals": (("run", "--Epochs", "1"), "unknown option --Epochs; did you mean --epochs?"),
    "an option with underscores": (("run", "--lr_schedule", "step"), "unknown option --lr_schedule; did you mean "
                                   "--lr-schedule?"),
    "an option before the command": (("--epochs", "3", "run"), "unknown option --epochs; options of a command stand "
                                     "behind its name; see `laconic --help`"),
    "an option like no other": (("bench", "wire", "--xyzzy"), "unknown option --xyzzy; `laconic bench wire --help` "
                                "lists the options"),
    "no value": (("run", "--epochs"), "--epochs needs a value: --epochs INTEGER; see `laconic run --help`"),
    "a value for a flag": (("run", "--record-times=yes"), "--record-times takes no value; see `laconic run --help`"),
    "no whole number": (("run", "-a", "sgd", "--epochs", "two"), "--epochs 'two' must be a whole number, at least 1"),
    "no number": (("run", "-a", "sgd", "--lr", "1e"), "--lr '1e' must be a number, above 0 and finite; leave it out "
                  "for the method's own default"),
    "one wrong number of several": (("bench", "kernels", "--density", "0.1", "--density", "x"),
                                    "--density 'x' must be a number, in (0, 1]; the papers use 0.01 and 0.001"),
    "no method": (("run",), "--algorithm is missing; give it, or a file that has it with --config"),
    "no argument": (("show",), "NAME is missing (the algorithm: a name that `laconic list` prints); see "
                    "`laconic show --help`"),
    "a method without its flag": (("run", "sgd"), "unexpected argument 'sgd'; give the method as -a sgd"),
    "a word too many": (("show", "sgd", "lag"), "unexpected argument 'lag'; `laconic show --help` shows the form"),
    "a value given twice": (("run", "--lr", "0.1", "-a", "sgd", "--lr=0.2"), "--lr is given twice (0.1, 0.2); it takes "
                            "one value"),
    "a value given three times": (("run", "-a", "sgd", "-asgd", "--algorithm", "lag"),
                                  "--algorithm is given 3 times (sgd, sgd, lag); it takes one value"),
    "a data set in capitals": (("run", "-a", "sgd", "--dataset", "MNIST"), "--dataset 'MNIST' must be one of digits, "
                               "mnist, fashion-mnist, cifar10, cifar100, image-folder, idx, csv, libsvm, text, or "
                               "module:function of your own; did you mean mnist?"),
    "a layout in capitals": (("run", "-a", "sgd", "--layout", "AllReduce"), "--layout 'AllReduce' must be one of auto, "
                             "allreduce, rank0, dedicated, sharded, allgather, peers; did you mean allreduce?"),
    "a file that is not there": (("--load", "mine.py", "list"), "--load mine.py: must be an existing Python file that "
                                 "ends in .py"),
    "a file that is not there, behind": (("run", "-a", "sgd", "--load", "mine.txt"), "--load mine.txt: must be an "
                                         "existing Python file that ends in .py"),
}  # fmt: skip

MINE = """
from dataclasses import dataclass
from laconic import SGD, algorithm

@algorithm("mine-{0}")
@dataclass(frozen=True, kw_only=True)
class Mine{0}(SGD):
    "Sends everything."
    source = "here"
"""


@pytest.mark.parametrize(("arguments", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_says_what_was_typed_and_what_is_wanted(arguments, line):
    ended = laconic(*arguments)
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {line}\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("show", "Ssgd_MV"), "did you mean ssgd-mv?"),
        (("run", "-a", "SGD"), "did you mean sgd?"),
        (("compare", "sgd", "CompSkip"), "did you mean compskip?"),
        (("run", "-a", "compskip", "--set", "Keep=0.1"), "did you mean keep?"),
        (("run", "-a", "compskip", "--set", "skip=RANDOM"), "did you mean random?"),
        (("run", "-a", "asgd", "--set", "staleness=Drop"), "did you mean drop?"),
        (("plan", "Sgd", "--params", "1M", "--workers", "2", "--bandwidth", "1Gbit"), "did you mean sgd?"),
        (("reproduce", "SASG_Table2-MNIST"), "did you mean sasg-table2-mnist?"),
        (("timeline", "Async_Server"), "did you mean async-server?"),
    ],
)
def test_a_name_is_suggested_whatever_its_capitals(arguments, hint):
    ended = laconic(*arguments)
    assert ended.code == 2
    assert hint in ended.err


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "behind it"])
def test_ones_own_methods_are_loaded_from_any_place(tmp_path, before):
    name = "before" if before else "behind"
    mine = tmp_path / f"{name}.py"
    mine.write_text(MINE.format(name))
    load, command = ("--load", str(mine)), ("show", f"mine-{name}")
    ended = laconic(*load, *command) if before else laconic(*command, *load)
    assert ended.code == 0, ended.err
    assert "Sends everything." in ended.out


def completed(*words: str) -> list[str]:
    """What a shell offers for the last word."""
    environment = {"_LACONIC_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(["laconic", *words]),
                   "COMP_CWORD": str(len(words))}  # fmt: skip
    return CliRunner().invoke(app, [], prog_name="laconic", env=environment).stdout.split()


def test_a_shell_completes_commands_options_methods_and_choices():
    assert completed("co") == ["compare"]
    assert completed("bench", "si") == ["simulate"]
    assert completed("run", "--lr-") == ["--lr-schedule"]
    assert completed("run", "-a", "ssgd-mv") == ["ssgd-mv", "ssgd-mv-ad", "ssgd-mv-rs"]
    assert completed("compare", "sgd", "comp") == ["compskip"]
    assert completed("bench", "step", "--algorithms", "sgd,comp") == ["sgd,compskip"]
    assert completed("run", "--layout", "all") == ["allreduce", "allgather"]
    assert completed("run", "--out", "") == [], "bash completes files"
