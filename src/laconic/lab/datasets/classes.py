"""Classes from labels, and train and test examples from one file or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray

from laconic.errors import DatasetError
from laconic.lab.datasets.dataset import Dataset
from laconic.lab.datasets.numbers import class_of
from laconic.lab.datasets.split import stratified_split
from laconic.lab.datasets.text_file import shown
from laconic.statements import warn


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """The labels of the examples of one file."""

    path: Path
    labels: Sequence[str]
    lines: Sequence[int]
    """The line of each example."""


@dataclass(frozen=True, kw_only=True)
class Examples(Labeled):
    """The examples of one file."""

    features: NDArray[numpy.float64] | NDArray[numpy.float32]
    """(n, c)."""
    columns: Sequence[str]
    """What a message calls each feature."""


def assemble(name: str, examples: Examples, test: Examples | None, *, standardize: bool) -> Dataset:
    """Return the data set of one file, divided 80/20, or of a train and a test file with equally many columns.

    Labels that are numbers are sorted by value, other labels as text, and numbered from 0. Missing features (NaN)
    become the mean of the train examples.

    Raises:
        DatasetError: There are fewer than two classes, a test example has a class of its own, or a column has no value.

    Warns:
        UserWarning: Some classes have one example.
    """
    division = divided(examples, test)
    if division.rows is None:
        assert test is not None
        train_features, test_features = examples.features, test.features
    else:
        train_features, test_features = (examples.features[rows.numpy()] for rows in division.rows)
    if standardize:
        mean, scale = _mean_and_scale(examples, train_features)
        train_features, test_features = (
            numpy.nan_to_num((features - mean) / scale, nan=0.0) for features in (train_features, test_features)
        )
    return Dataset(
        name=name,
        train_inputs=torch.from_numpy(numpy.ascontiguousarray(train_features, dtype=numpy.float32)),
        train_labels=division.train_labels,
        test_inputs=torch.from_numpy(numpy.ascontiguousarray(test_features, dtype=numpy.float32)),
        test_labels=division.test_labels,
        n_classes=division.n_classes,
    )


@dataclass(frozen=True, kw_only=True)
class Division:
    """Labels as numbers, of train and test examples."""

    train_labels: torch.Tensor
    """(n,) int64."""
    test_labels: torch.Tensor
    n_classes: int
    rows: tuple[torch.Tensor, torch.Tensor] | None = None
    """The rows of train and of test examples, if both are of one file."""


def divided(examples: Labeled, test: Labeled | None) -> Division:
    """Number the labels of one file, divided 80/20, or of a train and a test file. Raises as `assemble`."""
    numbers = _numbers(examples)
    labels = torch.tensor([numbers[class_of(word)] for word in examples.labels], dtype=torch.int64)
    if test is not None:
        return Division(train_labels=labels, test_labels=_test_labels(examples, test, numbers), n_classes=len(numbers))
    train, tested = _split(examples, labels)
    return Division(
        train_labels=labels[train], test_labels=labels[tested], n_classes=len(numbers), rows=(train, tested)
    )


def _numbers(examples: Labeled) -> dict[Decimal | str, int]:
    """Return class -> number. Labels are compared as numbers if all of them are, so that 1 and 1.0 are one class."""
    counts = Counter(class_of(word) for word in examples.labels)
    if len(counts) < 2:
        raise DatasetError(
            f"{examples.path}: every label is {shown(examples.labels[0])}, must be of two classes at least; is the "
            "label in another column, or are these the rows of one class?"
        )
    return {one: number for number, one in enumerate(sorted(counts, key=lambda one: (isinstance(one, str), one)))}


def _split(examples: Labeled, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        divided = stratified_split(labels)
    except DatasetError as error:
        raise DatasetError(f"{examples.path}: {error}") from None
    sizes = torch.bincount(labels)
    if alone := int((sizes == 1).sum()):
        line = examples.lines[int(torch.nonzero(sizes[labels] == 1)[0])]
        classes = "1 class has" if alone == 1 else f"{alone} classes have"
        warn(
            f"{examples.path}: {classes} one example, which is never tested; the first is in line {line}",
        )  # fmt: skip
    return divided


def _test_labels(examples: Labeled, test: Labeled, numbers: dict[Decimal | str, int]) -> torch.Tensor:
    labels = [numbers.get(class_of(word)) for word in test.labels]
    if None in labels:
        place = labels.index(None)
        known = [shown(str(one)) for one in numbers]
        listed = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
        raise DatasetError(
            f"{test.path}: line {test.lines[place]}: label {shown(test.labels[place])} is no class of {examples.path}, "
            f"which has {listed}; what is tested must have been trained"
        )
    return torch.tensor(labels, dtype=torch.int64)


def _mean_and_scale(
    examples: Examples, train: NDArray[numpy.float64] | NDArray[numpy.float32]
) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """Return the mean and standard deviation of each column, without what is missing; 1 for a constant column."""
    empty = numpy.isnan(train).all(axis=0)
    if empty.any():
        raise DatasetError(
            f"{examples.path}: {examples.columns[int(numpy.argmax(empty))]} has no value in any train example; leave "
            "it out"
        )
    low, high = numpy.nanmin(train, axis=0), numpy.nanmax(train, axis=0)
    # The mean of equal numbers can miss them by one rounding, which a tiny std would blow up to 1.
    constant = low == high
    some = numpy.isnan(train).any()
    mean = numpy.nanmean(train, axis=0) if some else train.mean(axis=0)
    std = numpy.nanstd(train, axis=0) if some else train.std(axis=0)
    return numpy.where(constant, low, mean), numpy.where(constant, 1.0, std)
