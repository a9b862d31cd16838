"""Tables in text files: what is read, and every way a file can be wrong."""

import gzip
from pathlib import Path

import pytest
import torch

from laconic.errors import DatasetError
from laconic.lab.datasets import load


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(name: str, path: Path | None) -> str:
    with pytest.raises(DatasetError) as caught:
        load(name, path)
    return str(caught.value)


# --- comma-separated values -------------------------------------------------------------------------

TEN_ROWS = "".join(f"{i},{10 * i},7,{'cat' if i % 2 else 'ant'}\n" for i in range(10))


def test_a_table_is_standardized_by_its_train_rows(tmp_path):
    table = load("csv", write(tmp_path, "t.csv", TEN_ROWS))
    assert table.input_shape == (3,)
    assert (len(table.train_inputs), len(table.test_inputs)) == (8, 2)
    assert torch.allclose(table.train_inputs.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(table.train_inputs.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    both = torch.cat([table.train_inputs, table.test_inputs])
    assert torch.allclose(both[:, 0], both[:, 1])


def test_a_constant_column_with_a_rounded_mean_becomes_zero(tmp_path):
    rows = "".join(f"{i},0.1,{i % 2}\n" for i in range(50))
    table = load("csv", write(tmp_path, "t.csv", rows))
    assert torch.all(table.train_inputs[:, 1] == 0.0)
    assert torch.all(table.test_inputs[:, 1] == 0.0)


def test_a_header_a_byte_order_mark_and_blank_lines_change_nothing(tmp_path):
    bare = load("csv", write(tmp_path, "bare.csv", TEN_ROWS))
    dressed = load("csv", write(tmp_path, "dressed.csv", "\ufeffx,y,z,animal\n\n" + TEN_ROWS + " \n"))
    assert torch.equal(bare.train_inputs, dressed.train_inputs)
    assert torch.equal(bare.test_labels, dressed.test_labels)


def test_text_labels_are_numbered_in_alphabetical_order(tmp_path):
    # The one feature is constant in each class, so it tells the class after the split.
    rows = "".join(f"{place},{word}\n" for place, word in [(3, "pear"), (2, "fig"), (1, "apple")] * 5)
    table = load("csv", write(tmp_path, "t.csv", rows))
    assert table.n_classes == 3
    assert table.train_labels.bincount().tolist() == [4, 4, 4]
    order = table.train_inputs[:, 0].argsort(stable=True)
    assert table.train_labels[order].diff().min() >= 0


def test_integer_labels_are_numbered_by_value_and_not_by_spelling(tmp_path):
    rows = "".join(f"{label},{label}\n" for label in [10, -1, 9, "+9"] * 5)
    table = load("csv", write(tmp_path, "t.csv", rows))
    assert table.n_classes == 3
    order = table.train_inputs[:, 0].argsort(stable=True)
    assert table.train_labels[order].diff().min() >= 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty, must hold rows"),
        ("\n \n", "empty, must hold rows"),
        ("x,y\n", "empty below its header"),
        ("1,2,a\n3,oops,b\n", "row 2, column 2: 'oops' must be a finite float32 number"),
        ("size,age,kind\n1,2,a\n3,,b\n", r"row 3, column 2 \(age\): '' must be a finite"),
        ("1,2,a\n3,nan,b\n", "row 2, column 2: 'nan' must be a finite"),
        ("1,2,a\n-inf,4,b\n", "row 2, column 1: '-inf' must be a finite"),
        ("1,2,a\n3,1e300,b\n", "row 2, column 2: '1e300' must be a finite float32"),
        ("1,2,a\n3,1_000,b\n", "row 2, column 2: '1_000' must be"),
        ("1,2,a\n3,4\n", "row 2 has 2 cells, must have 3 as row 1 has"),
        ("1,2,a\n3,4,\n", "row 2, column 3: the label is empty"),
        ("1;2;a\n", "row 1 has one cell.*commas missing"),
        ("1,2,a\n" * 10, "every label is 'a', must be of two classes"),
        ("1,2,a\n3,4,b\n", "at least 5 examples in classes of two or more, found 0"),
        ('1,2,"a\n3,4,b\n', "not comma-separated UTF-8 text"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(tmp_path, text, words):
    path = write(tmp_path, "t.csv", text)
    with pytest.raises(DatasetError, match=words) as caught:
        load("csv", path)
    assert str(path) in str(caught.value)


def test_a_binary_file_is_no_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(bytes(range(256)))
    assert "not comma-separated UTF-8 text" in refusal("csv", path)


@pytest.mark.parametrize("name", ["csv", "libsvm"])
def test_a_table_that_is_not_there_is_named(tmp_path, name):
    assert f"data={str(tmp_path / 'gone')!r} is not a file" in refusal(name, tmp_path / "gone")


# --- LIBSVM -----------------------------------------------------------------------------------------


def test_svmlight_lines_become_dense_rows_with_values_as_they_are(tmp_path):
    lines = "".join(f"{'+1' if i % 2 else '-1'} 1:{i} 4:0.5 # row {i}\n" for i in range(10))
    table = load("libsvm", write(tmp_path, "t", lines))
    assert table.input_shape == (4,)
    assert table.n_classes == 2
    assert torch.equal(table.train_labels, table.train_inputs[:, 0].long() % 2)
    assert torch.all(table.test_inputs[:, 1:] == torch.tensor([0.0, 0.0, 0.5]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty: holds 0 examples"),
        ("# nothing\n", "empty: holds 0 examples"),
        ("1\n0\n", "2 examples with 0 values"),
        ("1 1:2\n0 1:x\n", "line 2: item '1:x' must be index:value"),
        ("1 1:2\n0 two\n", "line 2: item 'two' must be index:value"),
        ("1 1:2\n0 1:nan\n", "line 2: item '1:nan' must be index:value with a finite"),
        ("1 1:2\n0 1:1e39\n", "line 2: item '1:1e39' must be index:value with a finite float32"),
        ("1 1:2\ninf 1:1\n", "line 2: label 'inf' must be a finite number"),
        ("1 1:2\ncat 1:1\n", "line 2: label 'cat' must be a finite number"),
        ("1 3:2 2:1\n", "line 1: item '2:1' must have an index above 3"),
        ("1 1:2\n" * 10, "every label is '1', must be of two classes"),
        ("1 1:2\n0 2000000000:1\n", "dense values, must be at most 1,073,741,824"),
    ],
)
def test_lines_that_are_not_svmlight_are_refused(tmp_path, text, words):
    path = write(tmp_path, "t", text)
    with pytest.raises(DatasetError, match=words) as caught:
        load("libsvm", path)
    assert str(path) in str(caught.value)


def test_a_packed_svmlight_file_is_not_unpacked(tmp_path):
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(b"1 1:2\n" * 10))
    assert "line 1" in refusal("libsvm", path)
