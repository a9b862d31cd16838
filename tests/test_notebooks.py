"""The notebooks, one a paper: from its equations to its figure, by public names, as committed without outputs."""

import ast
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import laconic
from support.notebooks import cells_of, run, text_of

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture
def figures(monkeypatch):
    """How many figures were drawn, without a screen."""
    plt.switch_backend("agg")
    yield plt.get_fignums
    plt.close("all")


def test_there_is_a_notebook_for_each_of_the_papers():
    assert [path.stem[:4] for path in NOTEBOOKS] == [f"00{number}-" for number in range(5)]


def test_a_notebook_is_committed_without_outputs_and_uses_public_names():
    for path in NOTEBOOKS:
        cells = cells_of(path)
        assert len({cell["id"] for cell in cells}) == len(cells), path.name
        assert any("$$" in text_of(cell) or "$" in text_of(cell) for cell in cells if cell["cell_type"] == "markdown")
        for cell in cells:
            if cell["cell_type"] != "code":
                continue
            assert (cell["outputs"], cell["execution_count"]) == ([], None), path.name
            tree = ast.parse(text_of(cell))
            modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            ours = [name for name in modules if name.startswith("laconic.")]
            assert not [name for name in ours if name.removeprefix("laconic.") not in laconic._FACES], path.name
            assert not re.search(r"\blaconic\.(lab|training|drivers|protocol)\b|\._", text_of(cell)), path.name


def dear(path):
    """The mark of a notebook that trains with several methods, for seconds."""
    return pytest.mark.slow if path.stem.startswith("003") else pytest.mark.nightly


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=dear(path)) for path in NOTEBOOKS])
def test_a_notebook_runs_from_its_equations_to_its_figures(path, figures):
    run(path)
    assert len(figures()) >= 1
