"""Gray or color pictures as bytes, normalized by channel, with a test split of their own or one in five."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from laconic.errors import Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.split import stratified_split


def picture_set(
    name: str, pixels: Tensor, labels: Tensor, tested: tuple[Tensor, Tensor] | None, n_classes: int
) -> Dataset:
    """Return a data set of pictures, normalized by the mean and deviation of each channel of the train pictures.

    Args:
        name: Its name.
        pixels: (n, c, h, w) uint8.
        labels: (n,) int64.
        tested: The same of test pictures; None takes one in five.
        n_classes: The number of classes.

    Raises:
        DatasetError: There are too few for a split.
    """
    if tested is None:
        train, test = stratified_split(labels)
        pixels, labels, tested = pixels[train], labels[train], (pixels[test], labels[test])
    mean, std = _statistics(pixels)
    inputs, test_inputs = (_normalized(each, mean, std) for each in (pixels, tested[0]))
    return Dataset(
        name=name, train_inputs=inputs, train_labels=labels, test_inputs=test_inputs, test_labels=tested[1],
        n_classes=n_classes,
        background=tuple(float(-m / s) for m, s in zip(mean, std, strict=True)) if pixels.shape[1] == 3 else (),
    )  # fmt: skip


def missing_folder(name: str, path: Path | None, holds: str) -> DataOptionError:
    """Return the error for a data set without its folder, or with something else in its place."""
    if path is None:
        return DataOptionError(f"{name}: needs ", Named("data"), f", a folder with {holds}")
    return DataOptionError(
        f"{name}: ", Named("data", str(path), quoted=True), f" is not a folder; it must be a folder with {holds}"
    )


def _statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation by channel, scaled to 0 to 1; a deviation of 0 becomes 1."""
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in pixels.unbind(1)]).double()
    values, total = torch.arange(256) / 255.0, counts.sum(1)
    mean = counts @ values.double() / total
    variance = (counts * (values.double() - mean.unsqueeze(1)).square()).sum(1) / total
    return mean, torch.where(variance > 0, variance.sqrt(), 1.0)


def _normalized(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    shape = (1, -1, 1, 1)
    return pixels.float().div_(255.0).sub_(mean.float().view(shape)).div_(std.float().view(shape))
