"""Files of a user's own methods: whatever is wrong in one is a line with file and line, and exit code 2."""

import sys

import pytest

from laconic.contract import ALGORITHMS
from support.command_line import laconic

METHOD = """
import laconic
@laconic.algorithm("{name}")
class {cls}(laconic.SGD):
    "A method."
"""
FAULTS = {
    "a syntax error": ("def f(:\n", "SyntaxError: invalid syntax (mine.py, line 1)"),
    "a missing module": ("\nimport no_such_module\n", "No module named 'no_such_module' (mine.py, line 2)"),
    "an error that means Ctrl-D": ("raise EOFError('cut')", "EOFError: cut (mine.py, line 1)"),
    "an error without a text": ("1\n\nassert False\n", "AssertionError (mine.py, line 3)"),
    "the end of the program": ("import sys\nsys.exit(0)", "it ends the program (exit code 0) when it is imported"),
    "an exit": ("exit('bye')", "it ends the program (exit code bye) when it is imported (mine.py, line 1)"),
    "a decorator without a name": (
        "import laconic\n@laconic.algorithm\nclass Mine(laconic.SGD): pass\n",
        '@laconic.algorithm needs the name that users type: @laconic.algorithm("mine") (mine.py, line 2)',
    ),
    "a decorated function": (
        "import laconic\n@laconic.algorithm('f')\ndef f(): pass\n", "is for a class that derives from",
    ),
    "a name that is taken": (
        METHOD.format(name="sgd", cls="Mine"), "algorithm 'sgd' is already laconic.algorithms.sgd.SGD; give Mine in",
    ),
    "a name given twice": (METHOD.format(name="twice", cls="Mine") * 2, "algorithm 'twice' is already Mine in"),
    "endless recursion": ("def f(): f()\nf()\n", "RecursionError"),
    "null bytes": ("a = '\0'\n", "null bytes"),
    "another error in a sibling": ("import broken_sibling\n", "ZeroDivisionError: division by zero (broken_"),
    "a syntax error in a sibling": ("import wrong_sibling\n", "SyntaxError: '(' was never closed (wrong_"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_before():
    algorithms, path = dict(ALGORITHMS), list(sys.path)
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(algorithms)
    sys.path[:] = path


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["list", "show"])
def test_a_fault_of_a_file_is_one_line_with_its_place(tmp_path, fault, command):
    text, words = FAULTS[fault]
    (tmp_path / "broken_sibling.py").write_text("\n1 / 0\n")
    (tmp_path / "wrong_sibling.py").write_text("f(")
    (tmp_path / "mine.py").write_text(text)
    before = dict(ALGORITHMS)
    ended = laconic("--load", str(tmp_path / "mine.py"), command, *(["sgd"] if command == "show" else []))
    assert ended.code == 2
    assert f"--load {tmp_path / 'mine.py'}: " in ended.err
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert before == ALGORITHMS


def test_a_file_imports_its_siblings_whatever_the_folder_is(tmp_path, monkeypatch):
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "sibling_with_a_value.py").write_text("NAME = 'with-sibling'\n")
    (folder / "mine.py").write_text("import sibling_with_a_value\n" + METHOD.format(name="with-sibling", cls="Mine"))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # loaded once
        ended = laconic("--load", "größe/mine.py", "--load", str(folder / "mine.py"), "show", "with-sibling")
        assert ended.code == 0, ended.err


@pytest.mark.filterwarnings("always")
def test_a_file_that_adds_no_method_causes_a_warning(tmp_path):
    (tmp_path / "empty.py").write_text("")
    ended = laconic("--load", str(tmp_path / "empty.py"), "show", "sgd")
    assert ended.code == 0
    assert "so it adds no method" in ended.err


@pytest.mark.filterwarnings("always")
def test_a_file_that_warns_without_end_fills_no_screen(tmp_path):
    (tmp_path / "warns.py").write_text(
        "import warnings\nfor i in range(1000): warnings.warn(f'{i}')\n" + METHOD.format(name="warns", cls="Mine")
    )
    ended = laconic("--load", str(tmp_path / "warns.py"), "show", "sgd")
    assert ended.code == 0
    assert ended.err.count("warning: ") == 21
    assert ended.err.endswith("further ones are not shown\n")
