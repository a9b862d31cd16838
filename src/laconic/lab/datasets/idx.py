"""MNIST and Fashion-MNIST from their four IDX files, checked byte for byte.

An IDX file is a 4-byte magic number, one big-endian uint32 per dimension, and one unsigned byte per
element. Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits.
H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, 2017 (arXiv:1708.07747).

Nothing is downloaded. A file is never unpacked beyond the size in its header plus one byte, and the
header may announce no more than the published number of examples.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset

IMAGES_MAGIC = 2051  # unsigned bytes, three dimensions
LABELS_MAGIC = 2049  # unsigned bytes, one dimension
IMAGE_SHAPE = (28, 28)
N_CLASSES = 10
N_BYTES_PER_READ = 1 << 20
SPLITS = {"train": 60_000, "t10k": 10_000}  # prefix of the file names -> published number of examples


@dataclass(frozen=True, kw_only=True)
class Collection:
    """One published data set of four IDX files."""

    name: str
    origin: str
    """Where to get the files."""
    mean: float
    """Mean of the train pixels, scaled to 0 to 1."""
    std: float
    """Standard deviation of the train pixels, scaled to 0 to 1."""
    sha256: Mapping[str, str]
    """Name of the packed file -> checksum."""


MNIST = Collection(
    name="mnist",
    origin='search for "MNIST handwritten digits, Yann LeCun"',
    mean=0.1307,
    std=0.3081,
    sha256={
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
FASHION_MNIST = Collection(
    name="fashion-mnist",
    origin="see data/fashion in the GitHub repository zalandoresearch/fashion-mnist",
    mean=0.2860,
    std=0.3530,
    sha256={
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)


def mnist(path: Path | None = None) -> Dataset:
    """MNIST, 28x28 handwritten digits, normalized; --data is the folder with its four IDX files."""
    return read_collection(MNIST, path)


def fashion_mnist(path: Path | None = None) -> Dataset:
    """Fashion-MNIST, 28x28 pictures of clothing, normalized; --data is the folder with its four IDX files."""
    return read_collection(FASHION_MNIST, path)


def read_collection(collection: Collection, folder: Path | None) -> Dataset:
    """Read the four files of a collection, packed (.gz) or not; the packed file wins if both exist.

    Returns:
        Inputs of shape (n, 1, 28, 28), normalized by the mean and std of the train pixels.

    Raises:
        DatasetError: The folder or a file is missing, or a file is not what its name says.

    Warns:
        UserWarning: A packed file is valid, but its checksum is not the published one.
    """
    paths = _find_files(collection, folder)
    tensors: dict[str, Tensor] = {}
    for prefix, max_items in SPLITS.items():
        images = paths[f"{prefix}-images-idx3-ubyte.gz"]
        labels = paths[f"{prefix}-labels-idx1-ubyte.gz"]
        pixels = read_idx(images, magic=IMAGES_MAGIC, item_shape=IMAGE_SHAPE, max_items=max_items)
        classes = read_idx(labels, magic=LABELS_MAGIC, item_shape=(), max_items=max_items)
        _check_pair(images, pixels, labels, classes)
        scaled = pixels.to(torch.float32).div_(255.0).sub_(collection.mean).div_(collection.std)
        tensors[f"{prefix}-inputs"] = scaled.unsqueeze(1)
        tensors[f"{prefix}-labels"] = classes.to(torch.int64)
    _compare_checksums(collection, paths)
    return Dataset(
        name=collection.name,
        train_inputs=tensors["train-inputs"],
        train_labels=tensors["train-labels"],
        test_inputs=tensors["t10k-inputs"],
        test_labels=tensors["t10k-labels"],
        n_classes=N_CLASSES,
    )


def read_idx(path: Path, *, magic: int, item_shape: tuple[int, ...], max_items: int) -> Tensor:
    """Read one IDX file of unsigned bytes.

    Args:
        path: A plain file, or a gzip file if its name ends in .gz.
        magic: The magic number the file must begin with.
        item_shape: The shape of one image (or label).
        max_items: The maximum number of images (or labels) that the header may announce.

    Returns:
        (n, *item_shape) uint8.

    Raises:
        DatasetError: The magic number, shape or length is wrong, or there are too many items.
    """
    n_header = 4 * (2 + len(item_shape))
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        header = _read_up_to(stream, n_header, path, n_expected=n_header)
        shape = _parse_header(path, header, magic=magic, item_shape=item_shape, max_items=max_items)
        n_payload = math.prod(shape)
        # One byte more than announced: enough to detect an overlong file, too little for a gzip bomb.
        payload = _read_up_to(stream, n_payload + 1, path, n_expected=n_header + n_payload)
    if len(payload) != n_payload:
        fault = "truncated" if len(payload) < n_payload else "too long"
        # Only one extra byte of an overlong gzip file was unpacked.
        packed = f"at least {n_header + len(payload):,}" if len(payload) > n_payload else f"{n_header + len(payload):,}"
        found = packed if path.suffix == ".gz" else f"{path.stat().st_size:,}"
        raise DatasetError(
            f"{path}: {fault}: expected {n_header + n_payload:,} bytes for shape {shape}, found {found}; fetch it again"
        )
    return torch.frombuffer(payload, dtype=torch.uint8).reshape(shape)


def _read_up_to(stream: gzip.GzipFile | BufferedReader, n_bytes: int, path: Path, *, n_expected: int) -> bytearray:
    """Read up to n_bytes from the stream. n_expected, counted from the file's start, is for error messages."""
    buffer = bytearray()
    try:
        while len(buffer) < n_bytes:
            chunk = stream.read1(min(N_BYTES_PER_READ, n_bytes - len(buffer)))
            if not chunk:
                break
            buffer += chunk
    except EOFError:
        raise DatasetError(
            f"{path}: truncated: the gzip stream breaks off, expected at least {n_expected:,} unpacked bytes "
            f"and an end mark, found {stream.tell():,} bytes; fetch it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(
            f"{path}: not valid gzip ({error}); fetch it again, or drop .gz from its name if it is unpacked"
        ) from error
    return buffer


def _parse_header(
    path: Path, header: bytearray, *, magic: int, item_shape: tuple[int, ...], max_items: int
) -> tuple[int, ...]:
    n_header = 4 * (2 + len(item_shape))
    if len(header) < n_header:
        raise DatasetError(
            f"{path}: truncated: expected a header of {n_header} bytes, found {len(header)}; fetch it again"
        )
    found, *shape = struct.unpack(f">{n_header // 4}I", header)
    if found != magic:
        hint = "it looks like gzip, so add .gz to its name" if header[:2] == b"\x1f\x8b" else "is it another file?"
        raise DatasetError(f"{path}: magic number {found}, must be {magic}; {hint}")
    if tuple(shape[1:]) != item_shape:
        raise DatasetError(f"{path}: items of shape {tuple(shape[1:])}, must be {item_shape}")
    if not 1 <= shape[0] <= max_items:
        raise DatasetError(f"{path}: announces {shape[0]:,} items, must be 1 to {max_items:,}")
    return tuple(shape)


def _check_pair(images: Path, pixels: Tensor, labels: Path, classes: Tensor) -> None:
    if len(pixels) != len(classes):
        raise DatasetError(
            f"{images}: {len(pixels):,} images, but {labels.name} has {len(classes):,} labels; "
            "take both files from one source"
        )
    strange = torch.nonzero(classes >= N_CLASSES).flatten()
    if len(strange):
        place = int(strange[0])
        raise DatasetError(
            f"{labels}: label {place} (counted from 0) is {int(classes[place])}, must be 0 to {N_CLASSES - 1}"
        )


def _find_files(collection: Collection, folder: Path | None) -> dict[str, Path]:
    """Return packed name -> existing file, packed or not."""
    paths: dict[str, Path] = {}
    if folder is not None:
        for packed in collection.sha256:
            for candidate in (folder / packed, folder / packed.removesuffix(".gz")):
                if candidate.is_file():
                    paths.setdefault(packed, candidate)
    missing = [f"{name} (sha256 {value})" for name, value in collection.sha256.items() if name not in paths]
    if not missing:
        return paths
    complaint: tuple[str | Named, ...] = (f"folder {str(folder)!r} lacks",)
    if folder is None:
        complaint = "needs ", Named("data"), ", a folder with the files"
    elif not folder.is_dir():
        given = Named("data", str(folder), quoted=True)
        complaint = given, " is not a folder; it must be a folder with the files"
    raise DataOptionError(
        f"{collection.name}: ", *complaint, f" {', '.join(missing)}, each packed as named or unpacked without .gz; "
        f"to get them, {collection.origin}",
    )  # fmt: skip


def _compare_checksums(collection: Collection, paths: Mapping[str, Path]) -> None:
    for packed, path in paths.items():
        if path.name != packed:
            continue  # only the packed files have a published checksum
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != collection.sha256[packed]:
            warnings.warn(
                f"{path}: sha256 is {found}, expected {collection.sha256[packed]} for {collection.name}; "
                "the file is used, but numbers may not compare with those of others",
                UserWarning,
                stacklevel=2,
            )
