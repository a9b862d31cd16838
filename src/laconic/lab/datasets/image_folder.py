"""A tree of pictures: a folder for each class, below `train` and `test` or alone.

Every file is decoded before training, so that a broken one is named then. Pillow decodes; it comes with matplotlib.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.pictures import missing_folder, picture_set

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_TRAIN, _TESTS = "train", ("test", "val", "valid", "validation")


def image_folder(path: Path | None = None, *, image_size: int | None = None) -> Dataset:
    """Pictures, normalized; --data is a folder with one of each class, or with `train` and `test` that have them.

    Args:
        path: The folder.
        image_size: Height and width: a picture is scaled until its shorter side has so many pixels, and its middle is
            taken. None where all pictures have one size.

    Returns:
        One channel if all pictures are gray, else three. Classes are numbered by their folders' names.

    Raises:
        DatasetError: There are fewer than two classes, a class is empty or is only tested, a file is no picture or
            breaks off, or sizes differ. It names the folder or file.
    """
    if path is None or not path.is_dir():
        raise missing_folder("image-folder", path, "a folder of pictures for each class")
    test = next((path / name for name in _TESTS if (path / name).is_dir()), None)
    train = path / _TRAIN
    if not train.is_dir():
        train, test = path, None
    classes = sorted(each.name for each in train.iterdir() if each.is_dir() and not each.name.startswith("."))
    if len(classes) < 2:
        raise DatasetError(f"{train}: has {len(classes)} folders, must have one of each class, at least 2")
    files, labels = _files(train, classes)
    test_files, test_labels = ([], []) if test is None else _files(test, classes)
    pixels = _decoded([*files, *test_files], image_size)
    numbers, n = torch.tensor([*labels, *test_labels]), len(files)
    tested = None if test is None else (pixels[n:], numbers[n:])
    return picture_set("image-folder", pixels[:n], numbers[:n], tested, len(classes))


def _files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Return the pictures below a folder in order, and their classes."""
    other = next((each.name for each in sorted(folder.iterdir()) if each.is_dir() and each.name not in classes
                  and not each.name.startswith(".")), None)  # fmt: skip
    if other is not None:
        raise DatasetError(f"{folder / other}: is no class of the train pictures, which are {', '.join(classes)}")
    files: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(each for each in (folder / name).rglob("*") if each.suffix.lower() in ENDINGS)
        if not found:
            raise DatasetError(
                f"{folder / name}: holds no pictures; their names end in {', '.join(ENDINGS)}"
                if (folder / name).is_dir() else f"{folder}: lacks the class {name}"
            )  # fmt: skip
        files += found
        labels += [number] * len(found)
    return files, labels


def _decoded(files: Sequence[Path], image_size: int | None) -> Tensor:
    """Return all pictures, (n, c, h, w) uint8."""
    images = [_array(file, image_size) for file in files]
    shape = images[0].shape[:2]
    for file, image in zip(files, images, strict=True):
        if image.shape[:2] != shape:
            raise DataOptionError(
                f"{file}: is {image.shape[1]}x{image.shape[0]} pixels, and {files[0]} is {shape[1]}x{shape[0]}; ",
                Named("image_size"), " N makes them one size",
            )  # fmt: skip
    if all(image.ndim == 2 for image in images):
        return torch.from_numpy(numpy.stack(images)).unsqueeze(1)
    color = [numpy.repeat(image[..., None], 3, 2) if image.ndim == 2 else image for image in images]
    return torch.from_numpy(numpy.stack(color)).permute(0, 3, 1, 2).contiguous()


def _array(file: Path, image_size: int | None) -> numpy.typing.NDArray[numpy.uint8]:
    """Return one picture, (h, w) if it is gray, else (h, w, 3)."""
    try:
        import PIL.Image
    except ImportError:
        raise DatasetError("image-folder: needs Pillow; install it with `pip install pillow`") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(file) as opened:
                image = opened.convert("L" if opened.mode in ("1", "L", "LA", "I", "I;16", "F") else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DatasetError(
            f"{file}: is no picture that Pillow can read ({type(error).__name__}: {error!s:.120}); mend or remove it"
        ) from None
    if image_size is not None:
        image = _scaled(image, image_size)
    return numpy.asarray(image, dtype=numpy.uint8)


def _scaled(image: Image, size: int) -> Image:
    """Return the middle of a picture whose shorter side is scaled to `size` pixels."""
    width, height = image.size
    factor = size / min(width, height)
    scaled = image.resize((max(size, round(width * factor)), max(size, round(height * factor))))
    left, top = (scaled.size[0] - size) // 2, (scaled.size[1] - size) // 2
    return scaled.crop((left, top, left + size, top + size))
