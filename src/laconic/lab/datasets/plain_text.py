"""A plain text as a task for a character model: which character comes next, at each place of a window.

The first nine tenths of the text are for training. Windows follow each other without overlap.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from torch import Tensor

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.text_file import existing_file, numbered_lines

MAX_KINDS = 10_000  # of characters: each is a class
TRAIN_SHARE = 0.9


def plain_text(path: Path | None = None, *, window: int = 64, encoding: str | None = None) -> Dataset:
    """Characters of a plain text, of which the next is predicted; --data is a text file, packed or not.

    Args:
        path: The file.
        window: The number of characters in a window.
        encoding: The name of its encoding; None for UTF-8.

    Returns:
        Inputs and labels of shape (n, window), int64: the characters of a window, and those that follow each. Their
        kinds are numbered by code point.

    Raises:
        DatasetError: The file is missing, no text, too short for a window of train and one of test text, or has one
            kind of character, or more than 10,000.
    """
    file = existing_file("text", path, "a file of plain text")
    content = "".join(line for _, line in numbered_lines(file, encoding))
    points = numpy.frombuffer(content.encode("utf-32-le"), dtype=numpy.uint32)
    kinds, numbers = numpy.unique(points, return_inverse=True)
    if not 2 <= len(kinds) <= MAX_KINDS:
        raise DatasetError(f"{file}: has {len(kinds):,} kinds of characters, must have 2 to {MAX_KINDS:,}")
    characters = torch.from_numpy(numbers.reshape(-1).astype(numpy.int64))
    n_train = int(TRAIN_SHARE * len(characters))
    train, test = characters[:n_train], characters[n_train:]
    shorter = min(len(train), len(test)) - 1
    if shorter < window:
        raise DataOptionError(
            f"{file}: has {len(characters):,} characters, of which a tenth is tested; ", Named("window", window),
            f" must be at most {shorter}" if shorter >= 1 else " needs a longer text",
        )  # fmt: skip
    (train_inputs, train_labels), (test_inputs, test_labels) = _windows(train, window), _windows(test, window)
    return Dataset(
        name="text",
        train_inputs=train_inputs,
        train_labels=train_labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
        n_classes=len(kinds),
    )


def _windows(characters: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Return windows, (n, window), and the characters that follow each of theirs."""
    n = (len(characters) - 1) // window * window
    return characters[:n].view(-1, window), characters[1 : n + 1].clone().view(-1, window)
