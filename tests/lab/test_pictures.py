"""Trees of pictures, and IDX files of any size: what is wrong with a file is named before training."""

import gzip
import struct

import pytest
import torch

from laconic.errors import DatasetError
from laconic.lab.datasets import load

PIL = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def save(file, color, size=(6, 4)):
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.new("L" if isinstance(color, int) else "RGB", size, color).save(file)


def tree(folder, splits=("train", "test")):
    for split in splits:
        for number in range(5):
            save(folder / split / "cat" / f"{number}.png", (200, 10, 10 * number))
            save(folder / split / "dog" / "deep" / f"{number}.PNG", 30 + number)
    return folder


def test_a_tree_of_pictures_is_a_data_set_with_a_class_for_each_folder(tmp_path):
    found = load("image-folder", tree(tmp_path))
    assert found.input_shape == (3, 4, 6), "channels, height, width; gray pictures get three channels"
    assert found.train_labels.tolist() == [0] * 5 + [1] * 5
    assert float(found.train_inputs.mean((0, 2, 3)).abs().max()) < 1e-5
    assert torch.allclose(found.train_inputs.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5)
    assert torch.equal(found.train_inputs, found.test_inputs), "the same pictures, scaled by the train pictures"
    assert len(found.background) == 3
    (tmp_path / "train" / "dog" / "deep" / "notes.txt").write_text("no picture")
    alone = load("image-folder", tree(tmp_path / "flat", ("",)))
    assert (len(alone.train_labels), len(alone.test_labels)) == (8, 2), "one in five"
    gray = tmp_path / "gray"
    for name in ("a", "b"):
        for number in range(5):
            save(gray / name / f"{number}.png", 50 * number)
    assert load("image-folder", gray).input_shape == (1, 4, 6)


def test_pictures_of_other_sizes_are_scaled_and_cropped_to_one(tmp_path):
    save(tree(tmp_path) / "train" / "cat" / "wide.png", (1, 2, 3), size=(40, 8))
    with pytest.raises(DatasetError, match=r"wide.png: is 40x8 pixels, and .*0.png is 6x4; image_size N"):
        load("image-folder", tmp_path)
    assert load("image-folder", tmp_path, image_size=5).input_shape == (3, 5, 5)


def test_what_is_wrong_with_a_tree_is_named(tmp_path):
    broken, half = tmp_path / "broken", tmp_path / "half"
    (tree(broken) / "test" / "dog" / "late.png").write_bytes(b"not a picture")
    picture = tree(half) / "train" / "cat" / "0.png"
    picture.write_bytes(picture.read_bytes()[:40])
    (tree(tmp_path / "more") / "test" / "bird").mkdir()
    (tree(tmp_path / "empty") / "train" / "ant").mkdir()
    for folder, words in (
        (broken, r"dog.late.png: is no picture that Pillow can read \(UnidentifiedImageError"),
        (half, r"cat.0.png: is no picture that Pillow can read"),
        (tmp_path / "more", "bird: is no class of the train pictures, which are cat, dog"),
        (tmp_path / "empty", "ant: holds no pictures; their names end in"),
        (tmp_path / "more" / "test" / "cat", "has 0 folders, must have one of each class"),
        (tmp_path / "not there", "must be a folder with a folder of pictures for each class"),
    ):
        with pytest.raises(DatasetError, match=words):
            load("image-folder", folder)


def idx(file, array, magic=None):
    header = struct.pack(f">{1 + array.dim()}I", magic or 2048 + array.dim(), *array.shape)
    data = header + bytes(array.to(torch.uint8).flatten().tolist())
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


def emnist(folder, n=20, size=(5, 7), lowest=1):
    folder.mkdir(exist_ok=True)
    pixels = torch.arange(n * size[0] * size[1]).reshape(n, *size) % 256
    idx(folder / "emnist-letters-train-images-idx3-ubyte.gz", pixels)
    idx(folder / "emnist-letters-train-labels-idx1-ubyte.gz", lowest + torch.arange(n) % 4)
    idx(folder / "emnist-letters-test-images-idx3-ubyte", pixels[:8])
    idx(folder / "emnist-letters-test-labels-idx1-ubyte", lowest + torch.arange(8) % 4)
    return folder


def test_idx_files_of_any_size_and_labels_are_read(tmp_path):
    found = load("idx", emnist(tmp_path))
    assert (found.input_shape, found.n_classes) == ((1, 5, 7), 4)
    assert found.train_labels.tolist() == [0, 1, 2, 3] * 5, "labels from 1 are numbered from 0"
    for name in ("images-idx3", "labels-idx1"):
        (tmp_path / f"emnist-letters-test-{name}-ubyte").unlink()
    assert len(load("idx", tmp_path).test_labels) == 4, "one in five"


def test_what_is_wrong_with_idx_files_is_named(tmp_path):
    names = {kind: f"emnist-letters-train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")}

    def changed(name, change):
        folder = emnist(tmp_path / name)
        change(folder)
        return folder

    def shorten(folder):
        file = folder / names["images-idx3"]
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-3]))

    for folder, words in (
        (changed("shortened", shorten), "truncated: expected 716 bytes"),
        (changed("no labels", lambda f: (f / names["labels-idx1"]).unlink()), "no file with train and labels"),
        (changed("no images", lambda f: (f / names["images-idx3"]).unlink()), "lacks a file with train and images"),
        (changed("short", lambda f: idx(f / names["labels-idx1"], torch.arange(7))), "20 images, but .* has 7 labels"),
        (changed("two", lambda f: idx(f / "other-train-images", torch.zeros(1, 2, 2))), "keep one of them"),
        (changed("magic", lambda f: idx(f / names["images-idx3"], torch.zeros(2, 2, 2), 5)), "magic number 5"),
        (changed("new", lambda f: idx(f / "emnist-letters-test-labels-idx1-ubyte", torch.arange(8))),
         "the test label 0 is in no train example"),
        (tmp_path / "none", "must be a folder with IDX files"),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=words):
            load("idx", folder)
