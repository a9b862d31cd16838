"""CIFAR's batches: what is read, that nothing in them is run, and every way a file can be wrong."""

import contextlib
import pickle
import random
from pathlib import Path

import numpy
import pytest
import torch

from laconic.errors import DatasetError
from laconic.lab.datasets import load
from laconic.lab.datasets.pickled import read_pickled
from support.cifar_batches import array, batch, cifar10_folder, dictionary, images, numbers, text

pytestmark = pytest.mark.filterwarnings("ignore:.*the checksum is not the published one")


def refusal_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_pickled(path, max_bytes=1 << 20)
    return str(caught.value)


def refusal(name: str, folder: Path | None, **options: object) -> str:
    with pytest.raises(DatasetError) as caught:
        load(name, folder, **options)
    return str(caught.value)


# --- what is read -----------------------------------------------------------------------------------


def test_batches_of_cifar10_are_read_in_order_and_normalized_by_channel(tmp_path):
    folder = cifar10_folder(tmp_path)
    for path in (folder, folder.parent):
        cifar = load("cifar10", path)
        assert cifar.train_inputs.shape == (20, 3, 32, 32)
        assert cifar.train_labels.tolist() == [(k + seed) % 10 for seed in range(1, 6) for k in range(4)]
        assert cifar.test_labels.tolist() == [9, 0, 1, 2, 3, 4]
    pixel = images(4, seed=2)[3072 + 1024 + 32 + 5]  # the second batch's second image: green, second row, sixth column
    assert cifar.train_inputs[5, 1, 1, 5].item() == pytest.approx((pixel / 255 - 0.4822) / 0.2435, abs=1e-5)
    assert cifar.background == pytest.approx((-0.4914 / 0.2470, -0.4822 / 0.2435, -0.4465 / 0.2616))


def test_cifar100_has_the_fine_classes(tmp_path):
    (tmp_path / "train").write_bytes(batch(7, n_classes=100, seed=96))
    (tmp_path / "test").write_bytes(batch(3, n_classes=100))
    cifar = load("cifar100", tmp_path)
    assert cifar.n_classes == 100
    assert cifar.train_labels.tolist() == [96, 97, 98, 99, 0, 1, 2]
    assert cifar.input_shape == (3, 32, 32)
    (tmp_path / "test").unlink()
    assert "lacks test; they are in cifar-100-python.tar.gz" in refusal("cifar100", tmp_path)


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_batch_that_python_3_has_written_is_read_too(tmp_path, protocol):
    pixels = numpy.frombuffer(images(5), dtype=numpy.uint8).reshape(5, 3072)
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": pixels, "labels": [3, 1, 4, 1, 5]}, protocol=protocol))
    found = read_pickled(tmp_path / "batch", max_bytes=1 << 20)
    assert found["labels"] == [3, 1, 4, 1, 5]
    assert numpy.array_equal(found["data"], pixels)


def test_missing_batches_are_named_and_missed_only_when_asked_for(tmp_path, stated):
    folder = cifar10_folder(tmp_path, without=("data_batch_3", "data_batch_5"))
    message = refusal("cifar10", folder)
    assert "lacks data_batch_3, data_batch_5" in message
    assert "allow_missing=True" in message
    cifar = load("cifar10", folder, allow_missing=True)
    assert cifar.train_labels.tolist() == [(k + seed) % 10 for seed in (1, 2, 4) for k in range(4)]
    assert "3 of 5 train files are used" in stated.text
    (folder / "test_batch").unlink()
    assert "test_batch; they are in" in refusal("cifar10", folder, allow_missing=True)


def test_files_with_other_checksums_are_read_with_one_warning_that_names_them(tmp_path):
    folder = cifar10_folder(tmp_path)
    with pytest.warns(UserWarning, match=r"data_batch_1, .*test_batch: the checksum is not the published one"):
        load("cifar10", folder)


def test_a_path_that_is_no_folder_says_what_to_give(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    assert "is a file; unpack it" in refusal("cifar10", tmp_path / "cifar-10-python.tar.gz")
    assert "is not a folder; it must be a folder such as cifar-10-batches-py" in refusal("cifar10", tmp_path / "no")


# --- nothing is run ---------------------------------------------------------------------------------


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_malicious_batch_is_refused_and_runs_nothing(tmp_path, protocol):
    trap = tmp_path / "trap"
    content = pickle.dumps({"labels": [1], "data": Malicious(trap)}, protocol=protocol)
    folder = cifar10_folder(tmp_path, n=1, n_test=1)
    (folder / "data_batch_2").write_bytes(content)
    message = refusal("cifar10", folder)
    assert "data_batch_2: byte " in message
    assert "nothing was run" in message
    assert not trap.exists()
    pickle.loads(content)
    assert trap.exists(), "the file does make it where it is unpickled"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"cos\nsystem\n(U\x02lstR", "the name 'os.system', which could run code"),
        (b"cnumpy.core.multiarray\nscalar\n", "the name 'numpy.core.multiarray.scalar'"),
        (b"cnumpy\nndarray\n)R", "a call that makes no array"),
        (b"cnumpy\ndtype\nU\x01O\x85R", "a call that makes no array"),
        (b"]K\x01\x85R", "a call that makes no array"),
        (b"cnumpy\nndarray\n}b", "the state of what is no array"),
        (b"]}b", "the state of what is no array"),
        (b"K\x01K\x02a", "items of what is no list"),
        (b"h\x63", "a value that was never noted"),
        (b"]K\x01s", "entries of what is no dictionary"),
        (b"P1\n", "the opcode PERSID"),
        (b"(ios\nsystem\n", "the opcode INST"),
        (b"\x82\x01", "the opcode EXT1"),
        (b"cnumpy\nndarray\n)\x81", "the opcode NEWOBJ"),
        (array(b"\0" * 4, (2, 3)), r"an array of shape (2, 3) with 4 bytes"),
        (array(b"\0" * 8, (1, 1), kind="f8"), "a call that makes no array of unsigned bytes"),
        (array(b"", (-1, 3)), "a shape that is none"),
    ],
)  # fmt: skip
def test_whatever_else_a_pickle_says_is_refused_at_its_byte(tmp_path, value, words):
    message = refusal_of(tmp_path / "batch", dictionary(("data", value)))
    assert words in message
    assert "byte " in message
    assert "fetch it again" in message


def test_no_prefix_of_a_batch_and_no_damaged_batch_ends_in_anything_but_a_dataset_error(tmp_path):
    path, content = tmp_path / "batch", dictionary(("labels", numbers([1, 2])), ("data", array(b"\1\2", (1, 2))))
    path.write_bytes(content)
    assert read_pickled(path, max_bytes=1000)["data"].tolist() == [[1, 2]]
    for length in range(len(content)):
        assert "batch: " in refusal_of(path, content[:length])
    draw = random.Random(5)
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DatasetError):
            assert isinstance(read_pickled(path, max_bytes=1000), dict)


def test_a_file_that_is_too_long_or_no_pickle_is_refused(tmp_path):
    assert "must be at most 1,048,576" in refusal_of(tmp_path / "batch", b"\x80" * ((1 << 20) + 1))
    assert "must be a pickle" in refusal_of(tmp_path / "batch", b"PK\x03\x04")
    assert "holds a list, must hold a dictionary" in refusal_of(tmp_path / "batch", b"\x80\x02].")


# --- wrong content ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([("data", array(images(1), (1, 3072)))], "has no labels"),
        ([("labels", numbers([1])), ("data", text("none"))], "data is str, must be an array of shape (n, 3072)"),
        ([("labels", numbers([1])), ("data", array(bytes(1024), (1, 1024)))], "data is (1, 1024), must be"),
        ([("labels", numbers([])), ("data", array(b"", (0, 3072)))], "data is (0, 3072), must be"),
        ([("labels", numbers([1, 2])), ("data", array(images(1), (1, 3072)))], "labels has 2, must be a list of 1"),
        ([("labels", text("x")), ("data", array(images(1), (1, 3072)))], "labels has a str, must be a list of 1"),
        ([("labels", numbers([10])), ("data", array(images(1), (1, 3072)))], "label 0 (counted from 0) is 10, must be"),
        ([("labels", b"](]e"), ("data", array(images(1), (1, 3072)))], "label 0 (counted from 0) is a list, must be"),
    ],
)
def test_a_batch_with_wrong_content_is_refused_with_what_it_has_and_must_have(tmp_path, items, words):
    folder = cifar10_folder(tmp_path)
    (folder / "data_batch_4").write_bytes(dictionary(*items))
    message = refusal("cifar10", folder)
    assert words in message
    assert "data_batch_4: " in message


# --- a choice of the examples -----------------------------------------------------------------------


def test_a_number_of_examples_is_the_same_random_choice_each_time_and_within_each_larger_one():
    everything, few, more = load("digits"), load("digits", examples=100), load("digits", examples=200)
    again = load("digits", examples=100)
    assert torch.equal(few.train_inputs, again.train_inputs)
    assert (len(few.train_labels), len(more.train_labels)) == (100, 200)
    assert torch.equal(few.test_inputs, everything.test_inputs)
    rows = {tuple(row.flatten().tolist()) for row in more.train_inputs}
    assert all(tuple(row.flatten().tolist()) in rows for row in few.train_inputs)
    assert len(few.train_labels.unique()) == 10
    assert torch.equal(load("digits", examples=1438).train_inputs, everything.train_inputs)
    with pytest.raises(DatasetError, match="examples=1439 must be 1 to 1,438, the train examples of digits"):
        load("digits", examples=1439)
