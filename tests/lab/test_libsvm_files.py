"""LIBSVM files as people have them, and every way one can be wrong."""

import bz2
import gzip
import lzma
import re
from pathlib import Path

import pytest
import torch

from laconic.errors import DatasetError, Spelling
from laconic.lab.datasets import load
from support.inputs import over_inputs

LINES = "".join(f"{'+1' if i % 2 else '-1'} 1:{i} 4:0.5\n" for i in range(10))


def write(folder: Path, text: str | bytes, name: str = "t") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(DatasetError) as caught:
        load("libsvm", path, **options)
    error = caught.value
    return error.spelled(Spelling.FLAG) if hasattr(error, "spelled") else str(error)


FORMS = {
    "as it is": LINES,
    "comments": "# none\n" + LINES.replace("\n", " # a row\n"),
    "blanks about the colon": LINES.replace(":", ": ").replace(" 4: ", " 4 : "),
    "numbers without a zero": LINES.replace("0.5", ".50"),
    "blanks and tabs at the ends": LINES.replace("\n", " \t\n\n").replace(" 4", "\t 4"),
    "carriage returns": LINES.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + LINES,
    "no newline at the end": LINES.rstrip(),
    "labels as decimal numbers": LINES.replace("+1", "1.0").replace("-1", "-1e0"),
    "packed by gzip": gzip.compress(LINES.encode()),
    "packed by bzip2": bz2.compress(LINES.encode()),
    "packed by xz": lzma.compress(LINES.encode()),
}


@over_inputs("form", FORMS)
def test_lines_become_dense_rows_with_values_as_they_are(tmp_path, form):
    table = load("libsvm", write(tmp_path, FORMS[form]))
    assert table.input_shape == (4,)
    assert table.n_classes == 2
    assert torch.equal(table.train_labels, table.train_inputs[:, 0].long() % 2)
    assert torch.all(table.test_inputs[:, 1:] == torch.tensor([0.0, 0.0, 0.5]))


def test_indices_from_0_are_read_when_that_is_asked_for(tmp_path):
    path = write(tmp_path, LINES.replace(" 1:", " 0:").replace(" 4:", " 3:"))
    assert "line 1: index 0 must be at least 1; " in refusal(path)
    assert "--index-base 0 reads them" in refusal(path)
    table = load("libsvm", path, index_base=0)
    assert torch.equal(table.train_inputs, load("libsvm", write(tmp_path, LINES, "from 1")).train_inputs)


def test_examples_without_a_feature_are_examples(tmp_path):
    assert len(load("libsvm", write(tmp_path, LINES + "1\n-1\n" * 5)).train_labels) == 16


def test_queries_are_ignored_with_a_warning(tmp_path):
    path = write(tmp_path, LINES.replace(" 1:", " qid:7 1:"))
    with pytest.warns(UserWarning, match=r"line 1 has a query \(qid\); queries are ignored"):
        assert load("libsvm", path).input_shape == (4,)


def test_a_test_file_has_the_features_and_classes_of_the_train_file(tmp_path):
    path = write(tmp_path, LINES)
    table = load("libsvm", path, test_data=write(tmp_path, "+1 2:3\n", "narrower"))
    assert table.test_inputs.tolist() == [[0.0, 3.0, 0.0, 0.0]]
    assert table.test_labels.tolist() == [1]
    with pytest.warns(UserWarning, match="wider: line 1 has feature 6, but those of .* end at 4; .* 0 in training"):
        assert load("libsvm", path, test_data=write(tmp_path, "1 6:3\n", "wider")).input_shape == (6,)
    assert "strange: line 2: label '3' is no class of" in refusal(
        path, test_data=write(tmp_path, "1 1:1\n3 1:1\n", "strange")
    )


REFUSED = {
    "nothing": ("", "empty: holds 0 examples"),
    "comments alone": ("# nothing\n", "empty: holds 0 examples"),
    "no values": ("1\n0\n", "2 examples with 0 values"),
    "a text for a value": ("1 1:2\n0 1:x\n", "line 2: item '1:x' must be index:value"),
    "no colon": ("1 1:2\n0 two\n", "line 2: item 'two' must be index:value"),
    "two colons": ("1 1:2:3\n", "line 1: item '1:2:3' must be index:value"),
    "no value": ("1 1:2 3:\n", "line 1: item '3:' must be index:value"),
    "not a number": ("1 1:2\n0 1:nan\n", "line 2: item '1:nan' must be index:value with a finite"),
    "a large number": ("1 1:2\n0 1:1e39\n", "line 2: item '1:1e39' must be index:value with a finite float32"),
    "an index below zero": ("1 -1:2\n", "line 1: item '-1:2' must be index:value"),
    "an infinite label": ("1 1:2\ninf 1:1\n", "line 2: label 'inf' must be one finite number"),
    "a text label": ("1 1:2\ncat 1:1\n", "line 2: label 'cat' must be one finite number; number the classes"),
    "two labels": ("1,2 1:1\n", "line 1: label '1,2' must be one finite number"),
    "no label": ("1 1:2\n1:2 2:1\n", "line 2: begins with '1:2', must begin with a label"),
    "unsorted indices": ("1 3:2 2:1\n", "line 1: index 2 follows 3, must rise within a line; sort the items"),
    "an index twice": ("1 1:1\n1 3:2 3:1\n", "line 2: index 3 stands there twice"),
    "a query behind items": ("1 1:2 qid:3\n", r"line 1: a query \(qid\) must stand behind the label"),
    "one class": ("1 1:2\n+1.0 1:3\n" * 10, "every label is '1', must be of two classes"),
    "a high index": (
        "1 1:2\n0 2000000000:1\n", "line 2: index 2,000,000,000 .* dense values, must be at most 1,073,741,824"),
    "a higher index": (f"1 1:2\n0 {'9' * 30}:1\n", "line 2: index '9{30}' makes too many dense values"),
    "many examples of a high index": (
        "1 1:2\n" * 3 + "0 900000000:1\n", "3,600,000,000 dense values.*highest index mistyped. It is in line 4"),
    "a page of the web": ("<!DOCTYPE html>\n", "line 1: label '<!DOCTYPE' must be one finite number"),
    "an array": (b"\x93NUMPY\x01\0", "is a numpy array, must be text"),
    "a broken packing": (bz2.compress(LINES.encode())[:30], "the bzip2 data are damaged or break off"),
}  # fmt: skip


@over_inputs("case", REFUSED)
def test_lines_that_are_not_svmlight_are_refused_with_their_number(tmp_path, case):
    text, words = REFUSED[case]
    path = write(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert re.search(words, message), message


def test_a_folder_and_a_file_that_is_missing_are_named(tmp_path):
    assert f"--data {str(tmp_path)!r} is a folder, not a file" in refusal(tmp_path)
    assert f"--data {str(tmp_path / 'gone')!r} is not a file" in refusal(tmp_path / "gone")
