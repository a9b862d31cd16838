"""Data sets by name. All are read from this machine; nothing is downloaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from laconic.errors import DatasetError, Named
from laconic.hyperparameters import near_misses
from laconic.lab.datasets.cifar import cifar10, cifar100
from laconic.lab.datasets.csv_table import csv_table
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.digits import digits
from laconic.lab.datasets.idx import fashion_mnist, mnist
from laconic.lab.datasets.idx_folder import idx_folder
from laconic.lab.datasets.image_folder import image_folder
from laconic.lab.datasets.libsvm import libsvm_table
from laconic.lab.datasets.own import own_dataset
from laconic.lab.datasets.plain_text import plain_text
from laconic.lab.datasets.split import SUBSET_SEED
from laconic.lab.own_functions import is_own

__all__ = ["DATASETS", "Dataset", "DatasetError", "check_reading", "load"]

# Name -> reader. The first line of a reader's docstring says what it reads and what --data must be; its keyword
# arguments are the options that it takes.
DATASETS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "csv": csv_table,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "idx": idx_folder,
    "image-folder": image_folder,
    "libsvm": libsvm_table,
    "mnist": mnist,
    "text": plain_text,
}


def check_reading(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the reader of a data set does not take.

    Raises:
        DataOptionError: naming the option, and the data sets that it is for.
    """
    for option, value in options.items():
        takers = [other for other, reader in DATASETS.items() if option in inspect.signature(reader).parameters]
        if name not in takers:
            reason = "comes with test examples of its own" if option == "test_data" else "has no such choice"
            raise DataOptionError(
                Named(option, value), " is for ", Named("dataset", takers[0]),
                *(f" or {other}" for other in takers[1:]),
                f"; {name} {reason}, so leave it out",
            )  # fmt: skip


def load(
    name: str,
    data: str | Path | None = None,
    *,
    examples: int | None = None,
    **options: Any,  # noqa: ANN401 - the reader's
) -> Dataset:
    """Read a data set.

    Args:
        name: A key of DATASETS, or `module:function` of a user's own.
        data: The file or folder to read, as given to --data; `~` is the home folder. None for digits.
        examples: How many train examples are used: a random choice, the same in every run. None for all.
        **options: How to read it: keyword arguments of its reader.

    Raises:
        ValueError: No data set has this name.
        DatasetError: `data` is missing, not allowed, or not what the name says, or the reader has no such option.
    """
    if is_own(name):
        check_reading(name, options)
        own = own_dataset(name, None if data is None else Path(data).expanduser())
        return own if examples is None else own.sampled(examples, SUBSET_SEED)
    if name not in DATASETS:
        known = sorted(DATASETS)
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    check_reading(name, options)
    if options.get("test_data") is not None:
        options["test_data"] = Path(options["test_data"]).expanduser()
    path = None if data is None else Path(data).expanduser()
    test = options.get("test_data")
    if path and test and path.is_file() and test.is_file() and test.samefile(path):
        raise DataOptionError(
            f"{name}: ", Named("test_data", str(test), quoted=True), " is the file of the train examples; give "
            "another, or leave it out and one example in five is tested",
        )  # fmt: skip
    dataset = DATASETS[name](path, **options)
    return dataset if examples is None else dataset.sampled(examples, SUBSET_SEED)
