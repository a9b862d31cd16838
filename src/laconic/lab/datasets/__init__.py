"""Data sets by name. All are read from this machine; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from laconic.errors import DatasetError
from laconic.hyperparameters import near_misses
from laconic.lab.datasets.dataset import Dataset
from laconic.lab.datasets.digits import digits
from laconic.lab.datasets.idx import fashion_mnist, mnist
from laconic.lab.datasets.table import csv_table, libsvm_table

__all__ = ["DATASETS", "Dataset", "DatasetError", "load"]

# Name -> reader. The first line of a reader's docstring says what it reads and what --data must be.
DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "csv": csv_table,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "libsvm": libsvm_table,
    "mnist": mnist,
}


def load(name: str, data: str | Path | None = None) -> Dataset:
    """Read a data set.

    Args:
        name: A key of DATASETS.
        data: The file or folder to read, as given to --data; `~` is the home folder. None for digits.

    Raises:
        ValueError: No data set has this name.
        DatasetError: `data` is missing, not allowed, or not what the name says.
    """
    if name not in DATASETS:
        known = sorted(DATASETS)
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    return DATASETS[name](None if data is None else Path(data).expanduser())
