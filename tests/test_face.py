"""The names of the package: each is imported at its first use, and `import laconic` loads nothing heavy."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import laconic

HEAVY = ("torch", "numpy", "numba", "sklearn", "matplotlib")
LIGHT = ("laconic", "laconic.units", "laconic.hyperparameters", "laconic.random_keys")


def ended(code: str) -> subprocess.CompletedProcess[str]:
    """A new Python process that has run this code."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def test_importing_the_package_or_its_light_modules_loads_nothing_heavy():
    found = ended(f"import sys, {', '.join(LIGHT)}\nprint([name for name in {HEAVY} if name in sys.modules])")
    assert found.stdout == "[]\n", found.stdout + found.stderr


def test_the_names_and_where_they_are_agree_with_the_imports_that_type_checkers_read():
    body = ast.parse(Path(laconic.__file__).read_text()).body
    (block,) = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    assert {name.name: node.module for node in imports for name in node.names} == laconic._MODULES
    assert list(laconic._MODULES) == laconic.__all__


def test_all_names_what_the_package_offers_in_order():
    offered = {name for name in dir(laconic) if not name.startswith("_")}
    assert offered == {*laconic.__all__, *laconic._FACES}
    assert laconic.__all__ == sorted(
        laconic.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_each_name_is_the_object_of_that_name_in_its_module():
    for name in laconic.__all__:
        assert getattr(laconic, name) is getattr(import_module(laconic._MODULES[name]), name), name


def test_public_packages_can_be_used_without_importing_them():
    for name in laconic._FACES:
        assert getattr(laconic, name) is import_module(f"laconic.{name}")


def test_a_star_import_brings_every_public_name():
    names: dict[str, object] = {}
    exec("from laconic import *", names)
    assert set(names) - {"__builtins__"} == set(laconic.__all__)


def test_a_misspelled_name_is_an_attribute_error_that_suggests_the_right_one():
    with pytest.raises(AttributeError, match="'DropSgn'; did you mean DropSign"):
        laconic.DropSgn  # noqa: B018
    with pytest.raises(ImportError, match="DropSgn"):
        exec("from laconic import DropSgn")
    assert not hasattr(laconic, "DropSgn")


@pytest.mark.slow
def test_the_registry_has_all_algorithms_however_it_is_reached():
    code = """
import sys
from laconic.contract import ALGORITHMS, Algorithm, algorithm
assert "laconic.algorithms" not in sys.modules
try:
    @algorithm("sgd")
    class Mine(Algorithm): ...
except ValueError as error:
    print(error)
print(*sorted(ALGORITHMS))
"""
    found = ended(code)
    refused, names = found.stdout.splitlines()
    assert refused == "algorithm 'sgd' is already laconic.algorithms.sgd.SGD; give __main__.Mine another name"
    assert names.split() == sorted(laconic.ALGORITHMS)
    assert laconic.ALGORITHMS is import_module("laconic.contract").ALGORITHMS
