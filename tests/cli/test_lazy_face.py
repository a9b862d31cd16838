"""What needs no torch loads none: help, a typing mistake, the version, the list of algorithms."""

import inspect
import os
import signal
import subprocess
import sys
from importlib import import_module

import pytest

from laconic import ALGORITHMS
from laconic.cli import algorithm_files
from laconic.cli.app import app
from laconic.cli.lazy import LazyGroup
from support.command_line import laconic
from support.deadlines import DEADLINE_S

HEAVY = ("torch", "numpy", "numba", "sklearn", "matplotlib")
COMMANDS = ("show", "run", "compare", "check", "reproduce", "report", "plan", "timeline")
BENCHES = ("kernels", "step", "wire", "simulate", "scale", "compare")

# Several command lines in one process, since each process takes a while to start. What one loads, the next has.
SCRIPT = """
import contextlib, io, os, sys
from laconic.__main__ import main

for line in sys.stdin.read().splitlines():
    sys.argv = ["laconic", *line.split()]
    os.environ.pop("_LACONIC_COMPLETE", None)
    if line.endswith("TAB"):  # what a shell asks where the key is pressed behind these words
        words = line.split()[:-1]
        os.environ |= dict(_LACONIC_COMPLETE="complete_bash", COMP_CWORD=str(len(words)),
                           COMP_WORDS="\\n".join(["laconic", *words]))
    code = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit as ending:
            code = ending.code
    print(line, code, *(name for name in {heavy} if name in sys.modules), sep="|")
"""

MINE = '''
"""A file of one's own, from a paper.

More of it.
"""

from dataclasses import dataclass

import laconic
from laconic import Algorithm, algorithm


@algorithm("mine-too")
@dataclass(frozen=True, kw_only=True)
class MineToo(Algorithm):
    """Sends nothing at all [sic].

    More of it.
    """

    source = "A Paper, " "Theorem 1"

    work = paper_bits = None


@laconic.algorithm("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Algorithm):
    """Sends everything."""

    work = paper_bits = None
'''


def loaded_by(*lines: str) -> list[tuple[str, int, list[str]]]:
    """Each command line, its exit code, and which heavy packages are loaded after it."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(heavy=HEAVY)],
        input="\n".join(lines), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = [line.split("|") for line in ended.stdout.splitlines()]
    assert [line for line, *_ in found] == list(lines)
    return [(line, int(code), heavy) for line, code, *heavy in found]


def group(app_of_it) -> LazyGroup:
    import typer

    made = typer.main.get_command(app_of_it)
    assert isinstance(made, LazyGroup)
    return made


@pytest.mark.slow
def test_help_and_the_version_load_nothing_heavy():
    lines = ["--help", "-h", "--version", "bench -h", "list -h"]
    lines += [f"{name} -h" for name in COMMANDS] + [f"bench {name} --help" for name in BENCHES]
    assert loaded_by(*lines) == [(line, 0, []) for line in lines]


def test_typing_mistakes_load_nothing_heavy():
    lines = ["", "lst", "--versoin", "run", "run -a sgd --epoch 3", "show", "bench", "bench kernls", "bench step --d 3"]
    assert loaded_by(*lines) == [(line, 2, []) for line in lines]


def test_completion_loads_nothing_heavy():
    lines = ["comp TAB", "run --dr TAB", "run -a ss TAB", "bench step --algorithms sgd,d TAB"]
    assert loaded_by(*lines) == [(line, 0, []) for line in lines]
    ((_, _, heavy),) = loaded_by("--show-completion")  # which fails where no shell has started it
    assert heavy == []


def test_list_loads_nothing_heavy_with_a_file_of_ones_own_either(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    lines = ["list", f"--load {mine} list", f"list --load {mine}"]
    assert loaded_by(*lines) == [(line, 0, []) for line in lines]


@pytest.mark.slow
def test_a_command_that_runs_loads_torch():
    ((_, code, heavy),) = loaded_by("show no-such-method")
    assert code == 2, "the names of the methods are looked at first, and need torch"
    assert "torch" in heavy


def test_a_mistyped_command_is_answered_with_the_one_that_is_meant():
    assert laconic("lst").err == "error: unknown command 'lst'; did you mean list?\n"
    assert laconic("LIST").err == "error: unknown command 'LIST'; did you mean list?\n"
    assert laconic("bench", "kernls").err == "error: unknown command 'kernls'; did you mean kernels?\n"
    assert laconic("kernels").err == "error: unknown command 'kernels'; did you mean bench kernels?\n"


def test_the_help_of_a_group_says_of_each_command_what_its_function_says():
    benches = group(app).commands["bench"]
    assert isinstance(benches, LazyGroup)
    for command in [*group(app).lazy_commands, *benches.lazy_commands]:
        function = getattr(import_module(command.module), command.function)
        assert command.about == (inspect.getdoc(function) or "").split("\n\n")[0], command.name
    assert [command.name for command in benches.lazy_commands] == list(BENCHES)
    assert list(group(app).commands) == ["list", *COMMANDS, "bench", "data"]


def test_what_is_read_in_the_files_is_what_the_imported_classes_say():
    read = {one.name: (one.about, one.source) for one in algorithm_files.described()}
    ours = {name: cls for name, cls in ALGORITHMS.items() if cls.__module__.startswith("laconic.")}
    assert read == {name: ((inspect.getdoc(cls) or "").split("\n")[0], cls.source) for name, cls in ours.items()}


def test_every_file_of_algorithms_can_be_read_without_importing_it():
    for path in algorithm_files.FOLDER.glob("*.py"):
        if path.stem != "__init__":
            assert algorithm_files.read_file(path), path


def test_the_list_shows_one_line_a_method_within_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = [" ".join(line.split()) for line in laconic("list").out.splitlines()]
    assert shown[2:-3] == [f"{one.name} {one.about}" for one in algorithm_files.described()]


def test_the_list_breaks_no_word_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    shown = laconic("list").out
    assert max(map(len, shown.splitlines())) <= 40
    words = " ".join(shown.split())
    for one in algorithm_files.described():
        assert f"{one.name} {one.about}" in words


def test_a_file_of_ones_own_is_read_in_the_same_form(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    read = [one for one in algorithm_files.described([str(mine), str(mine)]) if one.name.startswith("mine")]
    assert read == [
        algorithm_files.Described("mine", "Sends everything.", "A file of one's own, from a paper."),
        algorithm_files.Described("mine-too", "Sends nothing at all [sic].", "A Paper, Theorem 1"),
    ]
    assert "Sends nothing at all [sic]." in laconic("--load", str(mine), "list").out


@pytest.mark.parametrize(
    "lines",
    [
        'NAME = "lazy-" + "computed"\nalgorithm(NAME)(MineToo)',
        'for name in ("lazy-computed",):\n    algorithm(name)(MineToo)',
    ],
    ids=["by a computed name", "in a loop"],
)
def test_a_file_that_cannot_be_read_so_is_imported(tmp_path, lines):
    mine = tmp_path / "computed.py"
    mine.write_text(MINE.replace('@algorithm("mine-too")\n', "").replace('@laconic.algorithm("mine")\n', "") + lines)
    try:
        with pytest.raises(algorithm_files.UnreadableError):
            algorithm_files.read_file(mine)
        (found,) = [one for one in algorithm_files.described([str(mine)]) if one.name == "lazy-computed"]
        assert (found.about, found.source) == ("Sends nothing at all [sic].", "A Paper, Theorem 1")
    finally:
        ALGORITHMS.pop("lazy-computed", None)


def test_a_name_that_is_taken_is_refused_with_the_class_that_has_it(tmp_path):
    taken = tmp_path / "taken.py"
    taken.write_text(MINE.replace('"mine"', '"sgd"'))
    ended = laconic("--load", str(taken), "list")
    ALGORITHMS.pop("mine-too", None)
    assert ended.code == 2
    assert "'sgd' is already laconic.algorithms.sgd.SGD" in ended.err


@pytest.mark.slow
def test_python_m_laconic_is_the_command_and_says_how_it_was_called():
    ended = subprocess.run(
        [sys.executable, "-m", "laconic", "run", "--workers"], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: --workers needs a value: --workers INTEGER; see `python -m laconic run --help`\n"


@pytest.mark.slow
def test_a_signal_while_torch_loads_ends_the_command_with_one_line(tmp_path):
    slow = tmp_path / "torch"
    slow.mkdir()
    (slow / "__init__.py").write_text("import signal\nprint('loading', flush=True)\nsignal.pause()\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    for number, code, line in ((signal.SIGINT, 130, "stopped\n"), (signal.SIGTERM, 143, "stopped by SIGTERM\n")):
        with subprocess.Popen(
            [sys.executable, "-m", "laconic", "show", "sgd"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"PYTHONPATH": path},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "loading\n"
            process.send_signal(number)
            _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == code
        assert errors == line
