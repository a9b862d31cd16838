"""Batches as CIFAR's are: pickles of Python 2, opcode for opcode, and with a few images in place of thousands."""

import pickletools
import struct
from collections.abc import Iterable
from pathlib import Path

KEYS = {10: "labels", 100: "fine_labels"}


def text(word: str | bytes) -> bytes:
    """A short text of Python 2."""
    data = word.encode() if isinstance(word, str) else word
    return b"U" + bytes([len(data)]) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def array(pixels: bytes, shape: tuple[int, int], kind: str = "u1") -> bytes:
    """An array of bytes, as numpy of Python 2 pickled it."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09(K\x01"
        + number(shape[0]) + number(shape[1]) + b"\x86cnumpy\ndtype\nq\n" + text(kind) + b"K\x00K\x01\x87Rq\x0b(K\x03"
        + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(pixels)) + pixels
        + b"tb"
    )  # fmt: skip


def dictionary(*items: tuple[str, bytes]) -> bytes:
    return b"\x80\x02}q\x01(" + b"".join(text(key) + value for key, value in items) + b"u."


def numbers(values: Iterable[int]) -> bytes:
    return b"]q\x05(" + b"".join(map(number, values)) + b"e"


def images(n: int, seed: int = 0) -> bytes:
    """Pixels of images that differ from each other and from place to place."""
    return bytes((place * 7 + place // 3072 * 13 + seed) % 256 for place in range(n * 3072))


def batch(n: int, *, n_classes: int = 10, seed: int = 0) -> bytes:
    """A batch of n images whose classes count up."""
    made = dictionary(
        (KEYS[n_classes], numbers((place + seed) % n_classes for place in range(n))),
        ("data", array(images(n, seed), (n, 3072))),
        ("batch_label", text("a batch of a test")),
    )
    assert list(pickletools.genops(made))
    return made


def cifar10_folder(folder: Path, *, n: int = 4, n_test: int = 6, without: tuple[str, ...] = ()) -> Path:
    """Five train batches of n images, and a test batch."""
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    for place in range(1, 6):
        (inner / f"data_batch_{place}").write_bytes(batch(n, seed=place))
    (inner / "test_batch").write_bytes(batch(n_test, seed=9))
    for name in without:
        (inner / name).unlink()
    return inner
