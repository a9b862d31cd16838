"""Reads notebooks and runs their code cells in one interpreter, without jupyter."""

import json
from pathlib import Path
from typing import Any


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook of format 4."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5), f"{path.name}: must be of format 4.5"
    return notebook["cells"]


def text_of(cell: dict[str, Any]) -> str:
    """The text of a cell, which a file holds by lines."""
    return "".join(cell["source"])


def run(path: Path) -> dict[str, Any]:
    """Run the code cells in order, and return the names that they leave. An error names the notebook and the cell."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells_of(path)):
        if cell["cell_type"] == "code":
            exec(compile(text_of(cell), f"{path.name}, cell {number}", "exec"), names)
    return names
