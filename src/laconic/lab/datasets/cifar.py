"""CIFAR-10 and CIFAR-100 from the "python" batches that were published; nothing in them is run.

A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.pickled import read_pickled
from laconic.lab.datasets.published import differing
from laconic.statements import state_once, warn

IMAGE_SHAPE = (3, 32, 32)
N_PIXELS = 3 * 32 * 32
MAX_BYTES = 200_000_000  # the longest published file has 155 million


@dataclass(frozen=True, kw_only=True)
class _Collection:
    """One of the two data sets."""

    name: str
    folder: str
    """What the published archive unpacks to."""
    archive: str
    train: tuple[str, ...]
    test: str
    labels: str
    """The key of the labels in a batch."""
    n_classes: int
    mean: tuple[float, float, float]
    """Of the train pixels by channel, scaled to 0 to 1."""
    std: tuple[float, float, float]


_CIFAR10 = _Collection(
    name="cifar10", folder="cifar-10-batches-py", archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)), test="test_batch", labels="labels", n_classes=10,
    mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),
)  # fmt: skip
_CIFAR100 = _Collection(
    name="cifar100", folder="cifar-100-python", archive="cifar-100-python.tar.gz", train=("train",), test="test",
    labels="fine_labels", n_classes=100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762),
)  # fmt: skip


def cifar10(path: Path | None = None, *, allow_missing: bool = False) -> Dataset:
    """CIFAR-10, 32x32 color pictures, normalized; --data is the folder with its six python batches.

    Args:
        path: The folder, or the one above it.
        allow_missing: Whether some train batches suffice.

    Raises:
        DatasetError: The folder or a batch is missing, or a file is not what its name says.

    Warns:
        UserWarning: A file is valid, but its checksum is not the published one.
    """
    return _read(_CIFAR10, path, allow_missing=allow_missing)


def cifar100(path: Path | None = None) -> Dataset:
    """CIFAR-100 with its 100 fine classes, 32x32, normalized; --data is the folder with its python files.

    Raises and warns as `cifar10`.
    """
    return _read(_CIFAR100, path, allow_missing=False)


def _read(collection: _Collection, path: Path | None, *, allow_missing: bool) -> Dataset:
    folder = _folder(collection, path)
    names = _present(collection, folder, allow_missing=allow_missing)
    train = [_batch(folder / name, collection) for name in names]
    test = _batch(folder / collection.test, collection)
    if strange := differing(collection.name, [folder / name for name in (*names, collection.test)]):
        warn(
            f"{folder}: {', '.join(strange)}: the checksum is not the published one; the files are used, but numbers "
            f"may not compare with those of others (`laconic data check {collection.name}` shows both)"
        )
    return Dataset(
        name=collection.name,
        train_inputs=_normalized([pixels for pixels, _ in train], collection),
        train_labels=torch.cat([labels for _, labels in train]),
        test_inputs=_normalized([test[0]], collection),
        test_labels=test[1],
        n_classes=collection.n_classes,
        background=tuple(-mean / std for mean, std in zip(collection.mean, collection.std, strict=True)),
    )


def _folder(collection: _Collection, path: Path | None) -> Path:
    wanted = f"a folder such as {collection.folder}, which {collection.archive} holds"
    if path is None:
        raise DataOptionError(f"{collection.name}: needs ", Named("data"), f", {wanted}")
    if path.is_file():
        found = " is a file; unpack it, and give the folder"
    elif not path.is_dir():
        found = f" is not a folder; it must be {wanted}"
    else:
        inner = path / collection.folder
        return inner if inner.is_dir() else path
    raise DataOptionError(f"{collection.name}: ", Named("data", str(path), quoted=True), found)


def _present(collection: _Collection, folder: Path, *, allow_missing: bool) -> Sequence[str]:
    """Return the names of the train files; those that are missing may be missing."""
    missing = [name for name in (*collection.train, collection.test) if not (folder / name).is_file()]
    present = [name for name in collection.train if name not in missing]
    if not missing:
        return present
    complaint = f"{collection.name}: folder {str(folder)!r} lacks {', '.join(missing)}"
    if collection.test in missing or not present:
        raise DatasetError(f"{complaint}; they are in {collection.archive}")
    if not allow_missing:
        raise DataOptionError(
            f"{complaint}; they are in {collection.archive}, or train on the others with ", Named("allow_missing", True)
        )
    state_once(f"{complaint}: {len(present)} of {len(collection.train)} train files are used, as asked for")
    return present


def _batch(path: Path, collection: _Collection) -> tuple[NDArray[numpy.uint8], Tensor]:
    """Return the pixels of a batch, (n, 3072) uint8, and its labels."""
    content = read_pickled(path, max_bytes=MAX_BYTES)
    lacking = [key for key in ("data", collection.labels) if key not in content]
    if lacking:
        raise DatasetError(f"{path}: has no {' and no '.join(lacking)}; is it a batch of another data set?")
    pixels, labels = content["data"], content[collection.labels]
    if not isinstance(pixels, numpy.ndarray) or pixels.ndim != 2 or pixels.shape[1] != N_PIXELS or not len(pixels):
        shape = pixels.shape if isinstance(pixels, numpy.ndarray) else type(pixels).__name__
        raise DatasetError(f"{path}: data is {shape}, must be an array of shape (n, {N_PIXELS}); fetch it again")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        found = f"{len(labels):,}" if isinstance(labels, list) else f"a {type(labels).__name__}"
        raise DatasetError(
            f"{path}: {collection.labels} has {found}, must be a list of {len(pixels):,}, one for each image; fetch it "
            "again"
        )
    for place, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < collection.n_classes:
            found = str(label) if type(label) is int else f"a {type(label).__name__}"
            raise DatasetError(
                f"{path}: label {place} (counted from 0) is {found}, must be 0 to {collection.n_classes - 1}"
            )
    return pixels, torch.tensor(labels, dtype=torch.int64)


def _normalized(batches: Sequence[NDArray[numpy.uint8]], collection: _Collection) -> Tensor:
    """Return (n, 3, 32, 32) float32, normalized by the mean and std of the channels."""
    pixels = torch.from_numpy(numpy.concatenate(batches)).reshape(-1, *IMAGE_SHAPE)
    mean, std = (torch.tensor(of_channel).view(3, 1, 1) for of_channel in (collection.mean, collection.std))
    return pixels.to(torch.float32).div_(255.0).sub_(mean).div_(std)
