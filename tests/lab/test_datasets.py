"""Data sets: what is read, and every way a file can be wrong."""

import gzip
import hashlib
import struct
import sys
import warnings
from pathlib import Path

import pytest
import torch

from laconic.errors import DatasetError
from laconic.lab.datasets import DATASETS, load
from laconic.lab.datasets.dataset import Dataset
from laconic.lab.datasets.idx import IMAGE_SHAPE, IMAGES_MAGIC, LABELS_MAGIC, MNIST, read_idx
from laconic.lab.datasets.split import stratified_split

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def images_idx(n: int, *, magic: int = IMAGES_MAGIC, shape: tuple[int, int] = IMAGE_SHAPE) -> bytes:
    pixels = bytes(i % 256 for i in range(n * shape[0] * shape[1]))
    return struct.pack(">4I", magic, n, *shape) + pixels


def labels_idx(labels: list[int], *, magic: int = LABELS_MAGIC) -> bytes:
    return struct.pack(">2I", magic, len(labels)) + bytes(labels)


def mnist_folder(folder: Path, *, packed: bool = False) -> Path:
    """Twelve train and six test images; the labels count 0, 1, 2, ..."""
    for prefix, n in (("train", 12), ("t10k", 6)):
        files = {"images-idx3-ubyte": images_idx(n), "labels-idx1-ubyte": labels_idx([i % 10 for i in range(n)])}
        for name, content in files.items():
            path = folder / f"{prefix}-{name}"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return folder


def refusal(name: str, path: Path | None) -> str:
    with pytest.raises(DatasetError) as caught:
        load(name, path)
    return str(caught.value)


def small_dataset(**changes: object) -> Dataset:
    parts: dict[str, object] = {
        "name": "small",
        "train_inputs": torch.zeros(3, 2),
        "train_labels": torch.tensor([0, 1, 1]),
        "test_inputs": torch.zeros(1, 2),
        "test_labels": torch.tensor([1]),
        "n_classes": 2,
    }
    return Dataset(**(parts | changes))  # type: ignore[arg-type]


# --- the data set itself ----------------------------------------------------------------------------


def test_a_dataset_knows_the_shape_of_one_input():
    assert small_dataset().input_shape == (2,)


def test_two_datasets_can_be_compared_and_shown_without_their_tensors():
    assert small_dataset() != small_dataset()
    assert "tensor" not in repr(small_dataset())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "name=''"),
        ({"n_classes": 1}, "n_classes=1 must be at least 2"),
        ({"train_inputs": torch.zeros(3, 2, dtype=torch.float64)}, "train_inputs.*float64 must be float32"),
        ({"train_inputs": torch.zeros(3)}, "train_inputs"),
        ({"test_inputs": torch.zeros(0, 2), "test_labels": torch.zeros(0).long()}, "test_inputs.*at least 1"),
        ({"train_labels": torch.zeros(3)}, "train_labels.*must be int64"),
        ({"train_labels": torch.tensor([0, 1])}, r"train_labels=\(2,\).*\(3,\)"),
        ({"train_labels": torch.tensor([0, 1, 2])}, "run from 0 to 2, must be 0 to n_classes - 1 = 1"),
        ({"test_labels": torch.tensor([-1])}, "test_labels run from -1"),
        ({"test_inputs": torch.zeros(1, 3)}, r"test_inputs have shape \(3,\) each, must be \(2,\)"),
        ({"test_inputs": torch.full((1, 2), torch.nan)}, "test_inputs hold NaN"),
        ({"train_inputs": torch.zeros(3, 2).long()}, r"train_labels=\(3,\).*must be windows of characters"),
        (
            {"train_inputs": torch.zeros(3, 2).long(), "train_labels": torch.full((3, 2), 2)},
            "train characters run from 0 to 2, must be 0 to n_classes - 1 = 1",
        ),
    ],
)
def test_a_wrong_part_of_a_dataset_is_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        small_dataset(**changes)


# --- names ------------------------------------------------------------------------------------------


def test_a_misspelt_name_is_answered_with_near_misses_and_all_names():
    with pytest.raises(ValueError, match="did you mean mnist") as caught:
        load("minst", None)
    assert all(name in str(caught.value) for name in DATASETS)


def test_an_option_of_another_reader_is_refused_with_the_data_sets_that_it_is_for():
    with pytest.raises(DatasetError, match="header='yes' is for dataset='csv'; mnist has no such choice"):
        load("mnist", Path("nowhere"), header="yes")
    for name in ("digits", "fashion-mnist"):
        with pytest.raises(
            DatasetError, match=f" is for dataset='csv' or libsvm; {name} comes with test examples of its own, so leave"
        ):
            load(name, Path("nowhere"), test_data="t.csv")


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits"}))
def test_a_name_that_needs_a_path_says_what_to_pass(name):
    assert "needs data, a" in refusal(name, None)


def test_every_reader_says_in_one_line_what_it_reads():
    for read in DATASETS.values():
        one = (read.__doc__ or "").splitlines()[0]
        assert "--data" in one
        assert one.endswith(".")


# --- digits -----------------------------------------------------------------------------------------


def test_digits_are_small_pictures_with_pixels_from_0_to_1():
    digits = load("digits", None)
    assert digits.input_shape == (1, 8, 8)
    assert digits.n_classes == 10
    assert (len(digits.train_inputs), len(digits.test_inputs)) == (1438, 359)
    assert digits.train_inputs.min() == 0.0
    assert digits.train_inputs.max() == 1.0


@pytest.mark.slow
def test_digits_are_those_that_scikit_learn_loads_and_an_install_without_them_is_named(monkeypatch):
    from sklearn.datasets import load_digits

    digits, (pixels, classes) = load("digits", None), load_digits(return_X_y=True)
    train, test = stratified_split(torch.tensor(classes))
    expected = torch.tensor(pixels).float().div(16).view(-1, 1, 8, 8)
    assert torch.equal(digits.train_inputs, expected[train])
    assert torch.equal(digits.test_inputs, expected[test])
    assert torch.equal(digits.train_labels, torch.tensor(classes)[train])
    assert torch.equal(digits.test_labels, torch.tensor(classes)[test])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "scikit-learn has no datasets/data/digits.csv.gz here; install it anew" in refusal("digits", None)


def test_digits_are_split_alike_each_time_whatever_the_global_seed():
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    one = load("digits", None)
    torch.manual_seed(2)
    second = load("digits", None)
    torch.random.set_rng_state(state)
    assert torch.equal(one.train_inputs, second.train_inputs)
    assert torch.equal(one.test_labels, second.test_labels)


def test_digits_refuse_a_path():
    assert "leave it out" in refusal("digits", Path("somewhere"))


# --- the split --------------------------------------------------------------------------------------


def test_every_class_gives_a_fifth_of_its_examples_to_the_test_split():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 7)
    train, test = stratified_split(labels)
    assert sorted(torch.cat([train, test]).tolist()) == list(range(77))
    counts = torch.bincount(labels[test], minlength=3)
    assert torch.all((counts - torch.tensor([10.0, 4.0, 1.4])).abs() <= 1)


def test_a_class_with_one_example_is_never_only_tested():
    for place in range(11):
        labels = torch.zeros(11, dtype=torch.int64)
        labels[place] = 1
        train, _ = stratified_split(labels)
        assert place in train.tolist()


def test_too_few_examples_to_split_are_refused():
    with pytest.raises(DatasetError, match="at least 5 examples in classes of two or more, found 4"):
        stratified_split(torch.tensor([0, 0, 1, 1, 2]))


# --- IDX files --------------------------------------------------------------------------------------


def test_uncompressed_idx_files_are_read_and_normalized(tmp_path):
    mnist = load("mnist", mnist_folder(tmp_path))
    assert mnist.train_inputs.shape == (12, 1, 28, 28)
    assert mnist.test_inputs.shape == (6, 1, 28, 28)
    assert mnist.train_labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert mnist.train_inputs[0, 0, 0, 0].item() == pytest.approx(-0.1307 / 0.3081)
    assert mnist.train_inputs[0, 0, 9, 3].item() == pytest.approx((1.0 - 0.1307) / 0.3081)  # pixel 255


def test_fashion_mnist_is_normalized_by_its_own_statistics(tmp_path):
    fashion = load("fashion-mnist", str(mnist_folder(tmp_path)))
    assert fashion.name == "fashion-mnist"
    assert fashion.train_inputs[0, 0, 0, 0].item() == pytest.approx(-0.2860 / 0.3530)


def test_packed_files_with_other_checksums_are_read_with_a_warning_that_names_both(tmp_path):
    mnist_folder(tmp_path, packed=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        packed = load("mnist", tmp_path)
    assert len(caught) == 4
    assert all(warning.category is UserWarning for warning in caught)
    found = hashlib.sha256((tmp_path / f"{IMAGES}.gz").read_bytes()).hexdigest()
    message = next(str(warning.message) for warning in caught if IMAGES in str(warning.message))
    assert found in message
    assert MNIST.sha256[f"{IMAGES}.gz"] in message
    (tmp_path / "plain").mkdir()
    reference = load("mnist", mnist_folder(tmp_path / "plain"))
    assert torch.equal(packed.train_inputs, reference.train_inputs)
    assert torch.equal(packed.test_labels, reference.test_labels)


def test_a_missing_file_is_named_with_its_source_and_checksum(tmp_path):
    (mnist_folder(tmp_path) / IMAGES).unlink()
    message = refusal("mnist", tmp_path)
    assert f"{IMAGES}.gz (sha256 {MNIST.sha256[f'{IMAGES}.gz']})" in message
    assert "MNIST handwritten digits, Yann LeCun" in message
    assert LABELS not in message


def test_a_missing_folder_is_named_with_all_files_and_their_source(tmp_path):
    message = refusal("fashion-mnist", tmp_path / "nowhere")
    assert "is not a folder" in message
    assert "zalandoresearch/fashion-mnist" in message
    assert message.count("sha256") == 4


def test_a_truncated_idx_file_is_refused_with_its_size(tmp_path):
    path = mnist_folder(tmp_path) / IMAGES
    path.write_bytes(path.read_bytes()[:-1])
    assert f"truncated: expected {16 + 12 * 784:,} bytes for shape (12, 28, 28), found {15 + 12 * 784:,};" in refusal(
        "mnist", tmp_path
    )


def test_an_overlong_idx_file_is_refused_with_its_size(tmp_path):
    path = mnist_folder(tmp_path) / LABELS
    path.write_bytes(path.read_bytes() + b"\x00" * 5)
    assert "too long: expected 20 bytes for shape (12,), found 25;" in refusal("mnist", tmp_path)


def test_a_file_shorter_than_its_header_is_refused(tmp_path):
    (mnist_folder(tmp_path) / IMAGES).write_bytes(b"\x00\x00\x08")
    assert "expected a header of 16 bytes, found 3" in refusal("mnist", tmp_path)


def read_labels(path: Path) -> torch.Tensor:
    return read_idx(path, magic=LABELS_MAGIC, item_shape=(), max_items=100)


def test_no_prefix_of_a_gzip_file_is_taken_for_the_complete_file(tmp_path):
    path = tmp_path / "labels.gz"
    content = gzip.compress(labels_idx([3, 1, 4, 1, 5, 9, 2, 6]))
    path.write_bytes(content)
    assert read_labels(path).tolist() == [3, 1, 4, 1, 5, 9, 2, 6]
    for n_left in range(len(content)):
        path.write_bytes(content[:n_left])
        # One byte is too little to tell that it was gzip.
        words = r"not valid gzip" if n_left == 1 else r"truncated: .*expected .* bytes.* found"
        with pytest.raises(DatasetError, match=words):
            read_labels(path)


def test_a_damaged_gzip_file_is_refused(tmp_path):
    path = tmp_path / "labels.gz"
    content = bytearray(gzip.compress(labels_idx([3, 1, 4])))
    content[-6] ^= 1  # inside the checksum
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="not valid gzip"):
        read_labels(path)


def test_an_overlong_gzip_file_is_refused(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(labels_idx([3, 1, 4]) + b"\x00"))
    with pytest.raises(DatasetError, match=r"too long: expected 11 bytes for shape \(3,\), found at least 12"):
        read_labels(path)


def test_a_gzip_bomb_is_left_packed_and_refused(tmp_path):
    path = tmp_path / "labels.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(labels_idx([3, 1, 4]))
        stream.write(bytes(16 << 20))
    content = path.read_bytes()
    # The damage at the end shows that the reader never gets there: it would be "not valid gzip".
    path.write_bytes(content[:-8] + b"\xff" * 8)
    with pytest.raises(DatasetError, match="too long"):
        read_labels(path)


def test_a_header_that_announces_more_than_was_published_is_refused(tmp_path):
    (mnist_folder(tmp_path) / LABELS).write_bytes(struct.pack(">2I", LABELS_MAGIC, 2**32 - 1))
    assert "announces 4,294,967,295 items, must be 1 to 60,000" in refusal("mnist", tmp_path)


def test_a_header_that_announces_nothing_is_refused(tmp_path):
    (mnist_folder(tmp_path) / LABELS).write_bytes(labels_idx([]))
    assert "announces 0 items" in refusal("mnist", tmp_path)


def test_uncompressed_content_under_a_gz_name_is_refused(tmp_path):
    path = mnist_folder(tmp_path) / IMAGES
    path.rename(path.with_name(f"{IMAGES}.gz"))
    assert "not valid gzip" in refusal("mnist", tmp_path)


def test_gzip_content_under_a_name_without_gz_is_refused_with_the_remedy(tmp_path):
    (mnist_folder(tmp_path) / IMAGES).write_bytes(gzip.compress(images_idx(12)))
    assert "add .gz to its name" in refusal("mnist", tmp_path)


def test_a_label_file_in_the_place_of_images_is_refused_by_its_magic_number(tmp_path):
    (mnist_folder(tmp_path) / IMAGES).write_bytes(labels_idx([1] * 12))
    assert "magic number 2049, must be 2051" in refusal("mnist", tmp_path)


def test_images_of_another_shape_are_refused(tmp_path):
    (mnist_folder(tmp_path) / IMAGES).write_bytes(images_idx(12, shape=(8, 8)))
    assert "items of shape (8, 8), must be (28, 28)" in refusal("mnist", tmp_path)


def test_more_images_than_labels_are_refused(tmp_path):
    (mnist_folder(tmp_path) / IMAGES).write_bytes(images_idx(13))
    assert f"13 images, but {LABELS} has 12 labels" in refusal("mnist", tmp_path)


def test_a_label_above_nine_is_refused_with_its_place(tmp_path):
    (mnist_folder(tmp_path) / LABELS).write_bytes(labels_idx([0, 1, 2, 3, 4, 10, 6, 7, 8, 9, 0, 1]))
    assert "label 5 (counted from 0) is 10, must be 0 to 9" in refusal("mnist", tmp_path)
