"""Tables as people have them: what is read, what is said about it, and every way a file can be wrong."""

import gzip
import re
import warnings
from pathlib import Path

import pytest
import torch

from laconic.errors import DatasetError, Spelling
from laconic.lab.datasets import Dataset, load
from support.inputs import over_inputs


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(DatasetError) as caught:
        load("csv", path, **options)
    error = caught.value
    return error.spelled(Spelling.FLAG) if hasattr(error, "spelled") else str(error)


def quietly(path: Path, **options: object) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load("csv", path, **options)


def same(one: Dataset, other: Dataset) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in vars(one) if name.endswith(("inputs", "labels"))]
    return all(torch.equal(a, b) for a, b in pairs) and one.n_classes == other.n_classes


# --- what is in the table ---------------------------------------------------------------------------

CELLS = [[f"{i * i}", f"{10 * i * i}", "7", "cat" if i % 2 else "ant"] for i in range(10)]
TEN_ROWS = "".join(",".join(cells) + "\n" for cells in CELLS)


def test_a_table_is_standardized_by_its_train_rows(tmp_path):
    table = load("csv", write(tmp_path, TEN_ROWS))
    assert table.input_shape == (3,)
    assert (len(table.train_inputs), len(table.test_inputs)) == (8, 2)
    assert torch.allclose(table.train_inputs.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(table.train_inputs.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    both = torch.cat([table.train_inputs, table.test_inputs])
    assert torch.allclose(both[:, 0], both[:, 1])


def test_a_constant_column_with_a_rounded_mean_becomes_zero(tmp_path):
    rows = "".join(f"{i * i},0.1,{i % 2}\n" for i in range(50))
    table = load("csv", write(tmp_path, rows))
    assert torch.all(table.train_inputs[:, 1] == 0.0)
    assert torch.all(table.test_inputs[:, 1] == 0.0)


def test_text_labels_are_numbered_in_alphabetical_order(tmp_path):
    # The one feature is constant in each class, so it tells the class after the split.
    rows = "".join(f"{place},{word}\n" for place, word in [(3, "pear"), (2, "fig"), (1, "apple")] * 5)
    table = load("csv", write(tmp_path, rows))
    assert table.n_classes == 3
    assert table.train_labels.bincount().tolist() == [4, 4, 4]
    order = table.train_inputs[:, 0].argsort(stable=True)
    assert table.train_labels[order].diff().min() >= 0


@over_inputs(
    ("labels", "n_classes"),
    [
        (["10", "-1", "9", "+9"], 3),
        (["1", "1.0", "0", "0.00"], 2),
        (["1e2", "100", "0.5", ".5"], 2),
        (["9007199254740992", "9007199254740993", "9007199254740992.0"], 2),
        (["1", "None", "1.0"], 2),
        (["True", "False"], 2),
        (["inf", "1", "1e400"], 3),
    ],
)
def test_labels_of_one_number_are_one_class_and_classes_rise_with_it(tmp_path, labels, n_classes):
    values = {"None": "99", "True": "1", "False": "0", "inf": "98", "1e400": "97"}
    rows = "".join(f"{values.get(label, label)},{label}\n" for label in labels * 5)
    table = quietly(write(tmp_path, rows), header="no")
    assert table.n_classes == n_classes
    if n_classes == 3 and "inf" not in labels:
        order = table.train_inputs[:, 0].argsort(stable=True)
        assert table.train_labels[order].diff().min() >= 0


# --- forms of one table -----------------------------------------------------------------------------

FORMS = {
    "a header, a byte order mark and blank lines": ("\ufeffx,y,z,animal\n\n" + TEN_ROWS + " \n", {}),
    "carriage returns before newlines": (TEN_ROWS.replace("\n", "\r\n"), {}),
    "carriage returns alone": (TEN_ROWS.replace("\n", "\r"), {}),
    "semicolons": (TEN_ROWS.replace(",", ";"), {}),
    "tabs": (TEN_ROWS.replace(",", "\t"), {}),
    "vertical bars": (TEN_ROWS.replace(",", " | "), {}),
    "spaces": ("  " + TEN_ROWS.replace(",", "  "), {}),
    "separators at the end": ("a,b,c,d\n" + TEN_ROWS.replace("\n", ",,\n"), {}),
    "separators at the end of the header too": ("a,b,c,d,\n" + TEN_ROWS.replace("\n", ",\n"), {}),
    "comments": ("# from a sensor, 2 of 3\n" + TEN_ROWS.replace("\n", "\n  # between\n"), {}),
    "everything quoted": ("".join(",".join(f'"{c}"' for c in cells) + "\n" for cells in CELLS), {}),
    "blanks about the cells": (TEN_ROWS.replace(",", " , "), {}),
    "no newline at the end": (TEN_ROWS.rstrip(), {}),
    "the separator in a line of its own": ("sep=;\n" + TEN_ROWS.replace(",", ";"), {}),
    "UTF-16 with its mark": (TEN_ROWS.encode("utf-16"), {}),
    "packed by gzip": (gzip.compress(TEN_ROWS.encode()), {}),
    "the label first": ("".join(",".join([c[3], *c[:3]]) + "\n" for c in CELLS), {"label_column": "first"}),
    "the label by name": ("x,kind,y,z\n" + "".join(f"{a},{d},{b},{c}\n" for a, b, c, d in CELLS),
                          {"label_column": "kind"}),
    "the label by number": ("".join(f"{a},{d},{b},{c}\n" for a, b, c, d in CELLS), {"label_column": "2"}),
    "a column left out by name": ("x,note,y,z,kind\n" + "".join(f"{a},so so,{b},{c},{d}\n" for a, b, c, d in CELLS),
                                  {"drop_columns": "note"}),
    "columns left out by number": ("".join(f"{a},so so,{b},,{c},{d}\n" for a, b, c, d in CELLS),
                                   {"drop_columns": "2, 4"}),
    "a header that must be called one": ("1,2,3,cat\n" + TEN_ROWS, {"header": "yes"}),
}  # fmt: skip


@over_inputs("form", FORMS)
def test_a_table_is_the_same_in_every_form_without_a_warning(tmp_path, form):
    text, options = FORMS[form]
    assert same(load("csv", write(tmp_path, text), **options), load("csv", write(tmp_path, TEN_ROWS, "plain.csv")))


def test_quoted_newlines_and_separators_belong_to_their_label_and_lines_are_counted_as_in_an_editor(tmp_path):
    rows = "".join(f'{i * i},"big,\nred"\n{i * i + 1},"small;\r\n# green"\n' for i in range(5))
    assert load("csv", write(tmp_path, rows)).n_classes == 2
    assert "line 21, column 1: 'x' must be" in refusal(write(tmp_path, rows + 'x,"big,\nred"\n'))


WARNED = {
    "a header of column numbers": ("0,1,2,3\n" + TEN_ROWS, {}, "line 1 numbers the columns; it is read as a header"),
    "a header of years": ("2019,2020,2021,Class\n" + TEN_ROWS, {}, "line 1 has a name in place of a label: 'Class'"),
    "a header with some numbers": ("x,2020,z,sort\n" + TEN_ROWS, {}, "line 1 has texts where the others have numbers"),
    "pandas' row numbers": (
        ",x,y,z,kind\n" + "".join(f"{i},{line}\n" for i, line in enumerate(TEN_ROWS.splitlines())), {},
        "column 1 has no name and holds the rows' numbers or names; it is left out"),
    "shuffled row numbers": (
        "Unnamed: 0,x,y,z,kind\n" + "".join(f"{i * 7 % 10},{line}\n" for i, line in enumerate(TEN_ROWS.splitlines())),
        {}, "column 1 has no name and holds the rows' numbers or names; it is left out"),
    "R's row names, without a name in the header": (
        "x y z kind\n" + "".join(f'"row {i}" {" ".join(cells)}\n' for i, cells in enumerate(CELLS)), {},
        "column 1 has no name and holds the rows' numbers or names; it is left out"),
    "decimal commas": (
        "".join(f"{i * i},0;{10 * i * i},00;7;{'cat' if i % 2 else 'ant'}\n" for i in range(10)), {},
        "line 1 is the first with decimal commas, which are read as points"),
    "two columns of one name": ("x,x,z,kind\n" + TEN_ROWS, {}, "columns 1, 2 have one name, 'x'; all are read"),
    "rows with missing values": (
        TEN_ROWS + "1,?,3,cat\n1,2,3,\n", {"missing": "drop"}, "2 rows with missing values are left out"),
}  # fmt: skip


@over_inputs("case", WARNED)
def test_what_is_concluded_from_the_rows_is_warned_of_and_the_table_is_the_same(tmp_path, case):
    text, options, words = WARNED[case]
    path = write(tmp_path, text)
    with pytest.warns(UserWarning, match="t.csv") as warned:
        table = load("csv", path, **options)
    assert any(words in str(one.message) for one in warned)
    assert same(table, load("csv", write(tmp_path, TEN_ROWS, "plain.csv")))


def test_a_header_of_column_numbers_that_are_classes_too_shows_by_the_decimals_below(tmp_path):
    path = write(tmp_path, "0,1,2\n" + "".join(f"{i}.5,{i * i}.25,{i % 3}\n" for i in range(12)))
    with pytest.warns(UserWarning, match="line 1 has whole numbers where all other rows have decimals; it is read as"):
        table = load("csv", path)
    assert len(table.train_labels) + len(table.test_labels) == 12


def test_a_counting_column_in_front_is_a_feature_with_a_warning_until_it_is_decided(tmp_path):
    path = write(tmp_path, "".join(f"{i},{i % 3},{i % 2}\n" for i in range(10)))
    with pytest.warns(UserWarning, match="column 1 counts the rows .* --drop-columns 1 leaves it out"):
        assert load("csv", path).input_shape == (2,)
    assert load("csv", path, drop_columns="1").input_shape == (1,)
    assert load("csv", path, drop_columns="none").input_shape == (2,)


def test_a_class_with_one_example_is_named_with_its_line(tmp_path):
    path = write(tmp_path, TEN_ROWS + "5,5,5,dog\n")
    with pytest.warns(UserWarning, match="1 class has one example, which is never tested; the first is in line 11"):
        assert load("csv", path).n_classes == 3


def test_missing_values_become_the_mean_of_the_train_rows(tmp_path):
    rows = "".join(f"{i * i},{'NA' if i in (3, 4) else 5 * i},{i % 2}\n" for i in range(20))
    with pytest.warns(UserWarning, match="2 missing values are replaced by the mean"):
        table = load("csv", write(tmp_path, rows), missing="mean")
    both = torch.cat([table.train_inputs, table.test_inputs])[:, 1]
    assert torch.count_nonzero(both == 0.0) == 2
    assert abs(float(table.train_inputs[:, 1].mean())) < 1e-6


# --- a test file ------------------------------------------------------------------------------------


def test_test_examples_of_a_file_are_scaled_and_numbered_as_the_train_examples(tmp_path):
    train = write(tmp_path, "x,y,kind\n" + "".join(f"{i * i},{i},{'ba'[i % 2]}\n" for i in range(10)), "train.csv")
    for text in ("x,y,kind\n4,2,b\n", "4,2,b\n", "4;2;b"):
        table = load("csv", train, test_data=write(tmp_path, text, "test.csv"), drop_columns="none")
        assert len(table.train_labels) == 10
        assert table.test_labels.tolist() == [1]
        assert torch.equal(table.test_inputs[0], table.train_inputs[2])


WRONG_TESTS = {
    "a class of its own": ("4,2,c\n", "line 1: label 'c' is no class of .*train.csv, which has 'a', 'b'"),
    "another number of columns": ("4,2,3,a\n", "line 1 has 4 cells, must have 3 as .*train.csv has"),
    "columns in another order": ("y,x,kind\n2,4,b\n", "line 1: column 1 is 'y', must be 'x' as in .*train.csv"),
    "a missing value": ("4,2,a\n,1,b\n", r"line 2, column 1 \(x\): '' is a missing value"),
    "nothing": ("", "empty, must hold rows"),
}


@over_inputs("case", WRONG_TESTS)
def test_a_test_file_that_does_not_fit_is_refused(tmp_path, case):
    text, words = WRONG_TESTS[case]
    train = write(tmp_path, "x,y,kind\n" + "".join(f"{i * i},{i},{'ba'[i % 2]}\n" for i in range(10)), "train.csv")
    with pytest.raises(DatasetError, match=words) as caught:
        quietly(train, test_data=write(tmp_path, text, "test.csv"))
    assert str(caught.value).startswith(str(tmp_path / "test.csv"))


# --- what is refused --------------------------------------------------------------------------------

REFUSED = {
    "nothing": ("", "empty, must hold rows"),
    "blank lines": ("\n \n", "empty, must hold rows"),
    "a header alone": ("x,y\n", "empty below its header in line 1"),
    "a text for a number": ("1,2,a\n3,oops,b\n", "line 2, column 2: 'oops' must be a finite float32 number; .* "
                            "--drop-columns 2; or is it the label: --label-column 2"),
    "a text in the first row": ("1,oops,a\n3,4,a\n", "line 1, column 2: 'oops' must be .*: --header yes"),
    "no value": ("size,age,kind\n1,2,a\n3,,b\n", r"line 3, column 2 \(age\): '' is a missing value, must be a number; "
                 "--missing drop leaves such rows out, or --missing mean puts the mean"),
    "not a number": ("1,2,a\n3,nan,b\n", "line 2, column 2: 'nan' is a missing value"),
    "a question mark": ("1,2,a\n3,?,b\n", r"line 2, column 2: '\?' is a missing value"),
    "infinity": ("1,2,a\n-inf,4,b\n", "line 2, column 1: '-inf' must be a finite"),
    "a large number": ("1,2,a\n3,1e300,b\n", "line 2, column 2: '1e300' must be a finite float32"),
    "a large whole number": (f"1,2,a\n3,{'9' * 5000},b\n", r"line 2, column 2: '9{40}'\.\.\. must be a finite"),
    "a name like a number": ("1,2,a\n3,1_000,b\n", "line 2, column 2: '1_000' must be"),
    "a decimal comma beside commas": ('1,2,a\n"3,5",4,b\n', "line 2, column 1: '3,5' must be"),
    "a short row": ("1,2,a\n3,4\n5,6,a\n", "line 2 has 2 cells, must have 3 as line 1 has, separated by commas"),
    "a long row": ("1,2,a\n3,4,b\n5,6,a,7\n", "line 3 has 4 cells, must have 3"),
    "a title above": ("My data\n1,2,a\n3,4,b\n", "line 1 has 1 cells, must have 3 as line 2 has"),
    "no label": ("1,2,a\n3,4,\n", "line 2, column 3: '' is a missing label, must be a class; --missing drop"),
    "one column": ("1\n2\n", "line 1 has one cell, must have a number and a label"),
    "one class": ("1,2,a\n" * 10, "every label is 'a', must be of two classes"),
    "measurements": ("1,2,a\n3,4,b\n", "at least 5 examples in classes of two or more, found 0"),
    "an open quote": ('1,2,b\n1,2,"a\n3,4,b\n', "line 2: a quote that opens here is not closed"),
    "a header of numbers, perhaps": ("2019,2020\n" + "3,0\n2.5,1\n" * 5,
                                     "line 1 is the only one with the label '2020'.*: --header yes or --header no"),
    "a header of a number that is a class": (
        "10,20,1\n" + "1.5,2.5,0\n2.5,1.5,1\n" * 5, "line 1 has whole numbers where all other rows have decimals"),
    "a bad first cell": ("oops,a\n" + "1,a\n2,b\n" * 5, "line 1 has texts .* but 'a' is the label of other rows too"),
    "a zero byte": ("1,2,a\n3,\0,b\n", "line 2 has a zero byte"),
    "bytes of Latin-1": ("1,2,caf\u00e9\n".encode("latin-1"), "line 1, character 8: byte 0xe9 is not UTF-8 text; .* "
                         "--encoding latin-1"),
    "a workbook": (b"PK\x03\x04....", "is a ZIP archive or an Excel workbook"),
    "a broken packing": (gzip.compress(TEN_ROWS.encode())[:40], "the gzip data are damaged or break off"),
}  # fmt: skip


@over_inputs("case", REFUSED)
def test_a_table_that_cannot_be_learned_from_is_refused_with_its_line(tmp_path, case):
    text, words = REFUSED[case]
    path = write(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert re.search(words, message), message


WRONG_OPTIONS = {
    "a label that is not there": ({"label_column": "knd"}, "no column is named by --label-column 'knd'; .*mean kind"),
    "a label beyond the columns": ({"label_column": "9"}, "--label-column 9 must be in 1 .. 4"),
    "the label left out": ({"drop_columns": "kind"}, "--drop-columns kind leaves out column 4, which is the label"),
    "all left out": ({"drop_columns": "1,2,3"}, "no column is left beside the label"),
    "a doubled name": ({"label_column": "x"}, "--label-column 'x' is the name of columns 1 and 2; give the number"),
}


@over_inputs("case", WRONG_OPTIONS)
def test_columns_that_are_not_there_are_refused_with_those_that_are(tmp_path, case):
    options, words = WRONG_OPTIONS[case]
    path = write(tmp_path, "x,x,z,kind\n" + TEN_ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert re.search(words, refusal(path, **options))


def test_latin_1_is_read_when_it_is_named(tmp_path):
    path = write(tmp_path, TEN_ROWS.replace("cat", "caf\u00e9").encode("latin-1"))
    assert load("csv", path, encoding="latin-1").n_classes == 2


def test_a_folder_and_a_file_that_is_missing_are_named(tmp_path):
    assert f"--data {str(tmp_path)!r} is a folder, not a file" in refusal(tmp_path)
    assert f"--data {str(tmp_path / 'gone')!r} is not a file" in refusal(tmp_path / "gone")
    path = write(tmp_path, TEN_ROWS)
    assert f"--test-data {str(tmp_path)!r} is a folder" in refusal(path, test_data=tmp_path)
    assert "is the file of the train examples; give another" in refusal(path, test_data=path)
