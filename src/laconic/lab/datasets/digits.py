"""Handwritten digits of 8x8 pixels that are part of scikit-learn; no file is needed.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998.
Differs: scikit-learn holds only the 1,797 examples of the original test set; they are split here.
"""

from __future__ import annotations

from pathlib import Path

import torch

from laconic.errors import Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.split import stratified_split

HIGHEST_PIXEL = 16.0


def digits(path: Path | None = None) -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8x8 gray pixels in 0 to 1; takes no --data.

    Returns:
        Inputs of shape (n, 1, 8, 8), 10 classes, 1,438 train and 359 test examples.

    Raises:
        DatasetError: A path is given.
    """
    if path is not None:
        raise DataOptionError(
            "digits: ", Named("data", str(path)), " must not be given, the examples are part of scikit-learn; leave it "
            "out, or name another data set",
        )  # fmt: skip
    # scikit-learn takes a second to import, which listing the data sets should not need.
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels, dtype=torch.float32).div_(HIGHEST_PIXEL).reshape(-1, 1, 8, 8)
    labels = torch.tensor(classes, dtype=torch.int64)
    train, test = stratified_split(labels)
    return Dataset(
        name="digits",
        train_inputs=inputs[train],
        train_labels=labels[train],
        test_inputs=inputs[test],
        test_labels=labels[test],
        n_classes=10,
    )
