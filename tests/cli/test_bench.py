"""`laconic bench kernels`: rows, figures and refusals. How fast it is, no test says."""

import json

import pytest

from laconic.wire import POSITION_CODES
from terminal import laconic


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "kernels.json"
    arguments = ("--d", "5000", "--repeats", "3", "--density", "0.1", "--density", "0.01", "--json", str(file))
    return laconic("bench", "kernels", *arguments), json.loads(file.read_text())


def test_the_table_has_every_kernel_beside_torch(small):
    ended, _ = small
    assert ended.code == 0
    words = " ".join(ended.out.split())
    for word in ("5,000 float32, one thread, median of 3", "top-k", "top-k by torch", "fractional, 4 bits"):
        assert word in words
    for code in POSITION_CODES:
        for what in ("encode", "decode", "both"):
            assert f"{code} code, {what}" in words


def test_the_file_has_every_figure(small):
    _, figures = small
    assert (figures["d"], figures["repeats"], figures["threads"]) == (5000, 3, 1)
    assert {"python", "laconic", "torch", "numpy", "numba"} <= set(figures["versions"])
    assert figures["machine"]["cores"] >= 1
    rows = {(row["kernel"], row["by"], row["density"]): row for row in figures["rows"]}
    assert len(rows) == len(figures["rows"]) == 2 * (2 + 3 * len(POSITION_CODES)) + 1
    for row in rows.values():
        lower, upper = row["copies_quartiles"]
        assert 0 < lower <= row["copies"] <= upper
        assert len(row["seconds"]) == len(row["copy_seconds"]) == 3
    for code in POSITION_CODES:
        row = rows[f"{code} code, both", "laconic", 0.01]
        assert row["least_bits_per_position"] * 0.98 < row["bits_per_position"] < 2 * row["least_bits_per_position"]
    assert rows["list code, encode", "laconic", 0.1]["bits_per_position"] == 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--d", "1"), "--d 1 must be in 2 .. 4294967296"),
        (("--repeats", "0"), "--repeats 0 must be at least 1"),
        (("--density", "0"), "--density 0.0 must be in (0, 1]"),
        (("--density", "nan"), "--density nan must be in (0, 1]"),
        (("--density", "1.5"), "--density 1.5 must be in (0, 1]"),
        (("--d", "50", "--density", "0.01"), "density=0.01 of d=50 is no entry"),
        (("--json", "/no/such/folder/x.json"), "--json /no/such/folder/x.json: there is no folder /no/such/folder"),
    ],
)
def test_a_wrong_argument_is_named_with_its_bound(arguments, message):
    ended = laconic("bench", "kernels", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err
