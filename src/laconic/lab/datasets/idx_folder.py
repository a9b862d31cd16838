"""Pictures in IDX files of any size and number of classes, such as those of EMNIST.

G. Cohen, S. Afshar, J. Tapson, A. van Schaik: EMNIST: an extension of MNIST to handwritten letters, 2017.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor

from laconic.errors import DatasetError
from laconic.lab.datasets.dataset import Dataset
from laconic.lab.datasets.idx import IMAGES_MAGIC, LABELS_MAGIC, read_idx
from laconic.lab.datasets.pictures import missing_folder, picture_set

_MAX_BYTES = 1 << 32  # of the pixels of one file
_TESTS = ("test", "t10k")
_HEADER = 16


def idx_folder(path: Path | None = None) -> Dataset:
    """Pictures of one size, normalized; --data is a folder with IDX files of images and labels, such as EMNIST's.

    Files are known by their names: they have `images` or `labels` in them, and `train`, or `test` or `t10k`. Without
    test files one picture in five is tested. Labels may be any bytes; they are numbered in order.

    Raises:
        DatasetError: A file is missing, there twice or damaged, images and labels are not equally many, or a test
            label is in no train example.
    """
    if path is None or not path.is_dir():
        raise missing_folder("idx", path, "IDX files, such as emnist-letters-train-images-idx3-ubyte.gz")
    train = _pair(path, ("train",))
    if train is None:
        raise DatasetError(f"{path}: lacks a file with train and images in its name, packed (.gz) or not")
    pixels, labels = train
    test = _pair(path, _TESTS)
    classes = labels.long().bincount().nonzero().flatten()
    numbers = torch.full((256,), -1, dtype=torch.int64)
    numbers[classes] = torch.arange(len(classes))
    if len(classes) < 2:
        raise DatasetError(f"{path}: every train label is {int(classes[0])}, must be of two classes at least")
    tested = None
    if test is not None:
        if test[0].shape[1:] != pixels.shape[1:]:
            raise DatasetError(f"{path}: test pictures are {_size(test[0])}, and train pictures {_size(pixels)}")
        tested = (test[0], numbers[test[1].long()])
        if int(tested[1].min()) < 0:
            label = int(test[1][int(tested[1].argmin())])
            raise DatasetError(f"{path}: the test label {label} is in no train example; what is tested must be trained")
    return picture_set("idx", pixels, numbers[labels.long()], tested, len(classes))


def _pair(folder: Path, words: tuple[str, ...]) -> tuple[Tensor, Tensor] | None:
    """Return images (n, 1, h, w) and labels (n,), both uint8, of one split; None if there are no images."""
    images = _find(folder, "images", words)
    if images is None:
        return None
    labels = _find(folder, "labels", words)
    if labels is None:
        raise DatasetError(f"{folder}: has {images.name}, and no file with {words[0]} and labels in its name")
    n, height, width = _shape(images)
    pixels = read_idx(images, magic=IMAGES_MAGIC, item_shape=(height, width), max_items=n)
    numbers = read_idx(labels, magic=LABELS_MAGIC, item_shape=(), max_items=_MAX_BYTES)
    if len(pixels) != len(numbers):
        raise DatasetError(
            f"{images}: {len(pixels):,} images, but {labels.name} has {len(numbers):,} labels; take both files from "
            "one source"
        )
    return pixels.unsqueeze(1), numbers


def _find(folder: Path, what: str, words: tuple[str, ...]) -> Path | None:
    """Return the file of this kind; the packed one wins."""
    found = sorted(
        each for each in folder.iterdir()
        if what in each.name and any(word in each.name for word in words) and each.is_file()
    )  # fmt: skip
    names = {each.name.removesuffix(".gz") for each in found}
    if len(names) > 1:
        raise DatasetError(f"{folder}: holds {' and '.join(sorted(names))}; keep one of them in the folder")
    return found[-1] if found else None


def _shape(file: Path) -> tuple[int, int, int]:
    """Return the number and size of the images that a header announces."""
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            header = stream.read(_HEADER)
    except (OSError, EOFError) as error:
        raise DatasetError(f"{file}: cannot be read: {error}; fetch it again") from None
    if len(header) < _HEADER:
        raise DatasetError(f"{file}: truncated: expected a header of {_HEADER} bytes, found {len(header)}")
    magic, n, height, width = struct.unpack(">4I", header)
    if magic != IMAGES_MAGIC or not (n and height and width) or n * height * width > _MAX_BYTES:
        raise DatasetError(
            f"{file}: magic number {magic} with {n} x {height} x {width} elements, must be {IMAGES_MAGIC}, unsigned "
            f"bytes in three dimensions, of at most {_MAX_BYTES:,} elements"
        )
    return n, height, width


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[3]}x{pixels.shape[2]}"
