"""Handwritten digits of 8x8 pixels that are part of scikit-learn; no file is needed.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998.
Differs: scikit-learn holds only the 1,797 examples of the original test set; they are split here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy
import torch

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.split import stratified_split

HIGHEST_PIXEL = 16.0
_INSIDE = "datasets/data/digits.csv.gz"


def digits(path: Path | None = None) -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8x8 gray pixels in 0 to 1; takes no --data.

    Returns:
        Inputs of shape (n, 1, 8, 8), 10 classes, 1,438 train and 359 test examples.

    Raises:
        DatasetError: A path is given, or scikit-learn's file is not there.
    """
    if path is not None:
        raise DataOptionError(
            "digits: ", Named("data", str(path)), " must not be given, the examples are part of scikit-learn; leave it "
            "out, or name another data set",
        )  # fmt: skip
    rows = torch.from_numpy(numpy.loadtxt(_file(), delimiter=","))
    inputs = rows[:, :-1].float().div_(HIGHEST_PIXEL).reshape(-1, 1, 8, 8)
    labels = rows[:, -1].long()
    train, test = stratified_split(labels)
    return Dataset(
        name="digits",
        train_inputs=inputs[train],
        train_labels=labels[train],
        test_inputs=inputs[test],
        test_labels=labels[test],
        n_classes=10,
    )


def _file() -> Path:
    """Return scikit-learn's file of 64 pixels and a class a line. To import scikit-learn takes longer than a run."""
    spec = find_spec("sklearn")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = next((file for folder in folders if (file := Path(folder, _INSIDE)).is_file()), None)
    if found is None:
        raise DatasetError(f"digits: scikit-learn has no {_INSIDE} here; install it anew: pip install scikit-learn")
    return found
