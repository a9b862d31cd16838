"""A data set of a classifier, or of a model of characters, in memory.

Shapes: n examples of one split, *shape the shape of one input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from laconic.errors import DatasetError, Named, OptionError


class DataOptionError(OptionError, DatasetError):
    """The option `data` does not go with the data set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Train and test examples with integer labels, on the CPU.

    Inputs are numbers, with one label each; or windows of t characters, with one label for each of them: the next one.

    Compared by identity, since tensors compare element by element.

    Raises:
        ValueError: A tensor has another dtype, shape or range than stated below.
    """

    name: str
    train_inputs: Tensor = field(repr=False)
    """(n_train, *shape) float32, finite; or (n_train, t) int64, 0 to n_classes - 1."""
    train_labels: Tensor = field(repr=False)
    """(n_train,) int64, 0 to n_classes - 1; or (n_train, t)."""
    test_inputs: Tensor = field(repr=False)
    """As train_inputs."""
    test_labels: Tensor = field(repr=False)
    """As train_labels."""
    n_classes: int
    """At least 2."""
    background: tuple[float, ...] = ()
    """The value of a black pixel by channel, of photographs and the like that may be shifted and mirrored."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("Dataset: name='' must not be empty; give the name that DATASETS lists")
        if self.n_classes < 2:
            raise ValueError(f"Dataset {self.name}: n_classes={self.n_classes} must be at least 2")
        self._check_split("train", self.train_inputs, self.train_labels)
        self._check_split("test", self.test_inputs, self.test_labels)
        if self.test_inputs.shape[1:] != self.train_inputs.shape[1:]:
            raise ValueError(
                f"Dataset {self.name}: test_inputs have shape {tuple(self.test_inputs.shape[1:])} each, "
                f"must be {self.input_shape} as in train_inputs"
            )

    def sampled(self, n: int, seed: int) -> Dataset:
        """Return the data set with `n` of its train examples: the first of a random order.

        Raises:
            OptionError: There are fewer.
        """
        chosen = chosen_examples(self.name, len(self.train_labels), n, seed)
        return replace(self, train_inputs=self.train_inputs[chosen], train_labels=self.train_labels[chosen])

    def _check_split(self, split: str, inputs: Tensor, labels: Tensor) -> None:
        where = f"Dataset {self.name}: {split}"
        if inputs.dtype == torch.int64:
            _check_characters(where, inputs, labels, self.n_classes)
            return
        if inputs.dtype != torch.float32 or inputs.dim() < 2 or math.prod(inputs.shape) == 0:
            raise ValueError(
                f"{where}_inputs={tuple(inputs.shape)} {inputs.dtype} must be float32 of shape (n, *shape), "
                "with n and every size at least 1"
            )
        if labels.dtype != torch.int64 or labels.shape != inputs.shape[:1]:
            raise ValueError(
                f"{where}_labels={tuple(labels.shape)} {labels.dtype} must be int64 of shape "
                f"({inputs.shape[0]},), one for each of {split}_inputs"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.n_classes:
            raise ValueError(
                f"{where}_labels run from {low} to {high}, must be 0 to n_classes - 1 = {self.n_classes - 1}"
            )
        if not bool(torch.isfinite(inputs).all()):
            raise ValueError(f"{where}_inputs hold NaN or infinity; every element must be finite")

    @property
    def is_text(self) -> bool:
        """Whether inputs are windows of characters."""
        return self.train_inputs.dtype == torch.int64

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the leading n."""
        return tuple(self.train_inputs.shape[1:])


def chosen_examples(name: str, available: int, n: int, seed: int) -> Tensor:
    """Return which `n` train examples are used, in order: the first of a random order.

    Raises:
        OptionError: There are fewer.
    """
    if not 1 <= n <= available:
        raise DataOptionError(
            Named("examples", n), f" must be 1 to {available:,}, the train examples of {name}; leave it out for all of "
            "them",
        )  # fmt: skip
    return torch.randperm(available, generator=torch.Generator().manual_seed(seed))[:n].sort().values


def _check_characters(where: str, inputs: Tensor, labels: Tensor, n_classes: int) -> None:
    if inputs.dim() != 2 or math.prod(inputs.shape) == 0 or labels.dtype != torch.int64 or labels.shape != inputs.shape:
        raise ValueError(
            f"{where}_inputs={tuple(inputs.shape)} and {where}_labels={tuple(labels.shape)} {labels.dtype} must be "
            "windows of characters, (n, t) int64 both, with n and t at least 1"
        )
    low, high = (int(end) for end in torch.stack([inputs, labels]).aminmax())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{where} characters run from {low} to {high}, must be 0 to n_classes - 1 = {n_classes - 1}")
