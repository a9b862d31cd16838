"""Machine code is found again as long as its kernel's file, and what this one takes names from, are as they were."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import laconic
from laconic.kernels.cpu import sources

PACKAGE = Path(laconic.__file__).parent
SCRIPT = """
import sys
from pathlib import Path
from laconic.kernels.cpu import sources
folder = Path(sources.__file__).parent
print(*(sources.digest_of(str(folder / name)).hex() for name in sys.argv[1:]), sources.digest_of_all().hex())
"""
FILES = ["steps.py", "indexing.py", "signs.py"]  # the second takes names from the first, the last does not


def digests(folder):
    command = [sys.executable, "-c", SCRIPT, *FILES]
    done = subprocess.run(command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_after_a_change_only_the_kernels_that_take_from_the_changed_file_are_compiled_again(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "laconic", ignore=shutil.ignore_patterns("__pycache__"))
    before = digests(tmp_path)
    with (tmp_path / "laconic/kernels/cpu" / FILES[0]).open("a") as file:
        file.write("# changed\n")
    after = digests(tmp_path)
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True, False, True]


@pytest.mark.parametrize("folder", ["cpu", "reference", "twins"])
def test_a_kernels_digest_sees_each_file_that_it_imports(folder):
    for path in sorted((PACKAGE / "kernels" / folder).rglob("*.py")):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
            elif isinstance(node, ast.Import):
                imported |= {each.name for each in node.names}
        files = {PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in imported if "laconic.k" in name}
        of_kernels = {
            each for each in files if each.is_file() and each.parts[-2] in ("cpu", "llvm", "reference", "twins")
        }
        unseen = of_kernels - set(sources._taken_from(path))
        assert {each.name for each in unseen} <= {"cache.py", "private_folder.py", "sources.py"}, path


def test_a_file_that_is_gone_has_no_digest():
    assert sources.digest_of("/nowhere/at/all.py") == b""


TYPED = """
import numpy as np
from laconic.kernels.api import kernel

def at(array, place):
    return array[place] + {}

print(kernel(at)(np.zeros(4), 1))
"""


@pytest.mark.slow
def test_a_kernel_that_was_typed_in_is_compiled_as_it_is_now(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    for added in ("1.0", "2.0"):
        command = [sys.executable, "-c", TYPED.format(added)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [added]
    assert not [*tmp_path.rglob("*.kernel")]
