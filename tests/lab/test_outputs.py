"""What a command writes is checked before it works, written as a whole, and locked while it is used."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from laconic.errors import OptionError
from laconic.lab import atomic
from laconic.lab.json_text import json_text
from laconic.lab.outputs import output_file, output_folder


def refusal(call):
    with pytest.raises(OptionError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("make", [output_file, lambda path, option: output_folder(path, option=option, overwrite=True)])
def test_what_cannot_be_written_is_refused_by_option_name_and_reason_and_leaves_nothing_behind(tmp_path, make):
    (tmp_path / "file").write_text("mine")
    for path, reason in [
        (tmp_path / "file" / "below", "file is not a folder"),
        (tmp_path / "new" / ("x" * 300), "File name too long"),
        (tmp_path / "nul\0", "null"),
    ]:
        words = refusal(lambda path=path: make(path, option="out"))
        assert words.startswith("out=")
        assert reason in words
        assert "give another" in words
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    assert "is a folder" in refusal(lambda: output_file(tmp_path, option="json"))
    (tmp_path / "taken").touch()
    assert "is a file" in refusal(lambda: output_folder(tmp_path / "taken", option="out", overwrite=True))


def test_a_checked_file_and_folders_made_for_it_go_again_if_nothing_is_written(tmp_path):
    with output_file(tmp_path / "a" / "b" / "c.json", option="json"):
        pass
    with output_folder(tmp_path / "d" / "e", option="out", overwrite=False) as folder:
        folder.inner("sgd")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_until_it_is_replaced_at_once_behind_its_link_with_its_mode(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    with output_file(link, option="json") as file:
        assert real.read_text() == "before"
        file.write_text("ä")
    assert link.is_symlink()
    assert real.read_bytes() == "ä".encode()
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_device_is_written_to_and_stays_a_device():
    with output_file(Path("/dev/null"), option="json") as file:
        file.write_text("x")
    assert not os.path.isfile("/dev/null")


def test_a_full_disk_is_named_with_the_file_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("before")
    with pytest.raises(OSError, match=r"summary\.json"), atomic.named_in_errors(path):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")
    with pytest.raises(OSError, match="missing/x"):
        atomic.write_text(tmp_path / "missing" / "x", "text")
    assert path.read_text() == "before"


def test_a_folder_with_results_is_refused_and_overwrite_removes_results_alone(tmp_path):
    (tmp_path / "sgd").mkdir()
    for name in ("sgd/config.toml", "sgd/metrics.csv", "faults.toml", "times.csv", "curves.png", "notes.txt"):
        (tmp_path / name).touch()
    words = refusal(lambda: output_folder(tmp_path, option="out", overwrite=False))
    assert "faults.toml" in words
    assert "overwrite=True" in words
    with output_folder(tmp_path, option="out", overwrite=True) as folder:
        assert (tmp_path / "faults.toml").exists(), "nothing is removed before the work begins"
        folder.clear()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["notes.txt"]


def test_a_folder_in_use_is_refused_with_the_process_id_and_so_is_one_in_it(tmp_path):
    with output_folder(tmp_path, option="out", overwrite=False) as folder:
        folder.inner("sgd")
        for path in (tmp_path, tmp_path / "sgd"):
            words = refusal(lambda path=path: output_folder(path, option="out", overwrite=True))
            assert f"process {os.getpid()}" in words
    output_folder(tmp_path, option="out", overwrite=False).close()


def test_the_lock_of_a_killed_process_does_not_block(tmp_path):
    code = (
        "import sys; from pathlib import Path; from laconic.lab.outputs import output_folder\n"
        "folder = output_folder(Path(sys.argv[1]), option='out', overwrite=False)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    assert f"process {child.pid}" in refusal(lambda: output_folder(tmp_path, option="out", overwrite=False))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    output_folder(tmp_path, option="out", overwrite=False).close()
    assert not list(tmp_path.iterdir())


def test_json_has_null_for_what_is_not_finite_and_keeps_every_other_digit():
    data = {"a": [math.nan, -math.inf, 0.1, 2**70], "b": (True, None, "ä")}
    assert json.loads(json_text(data)) == {"a": [None, None, 0.1, 2**70], "b": [True, None, "ä"]}
    assert "NaN" not in json_text(data)


def test_json_that_is_printed_holds_no_letter_that_a_terminal_obeys():
    name = "ä\x1b[1m\x7f\x9b\u202e\U000e0041"
    printed = json_text({name: [name]}, indent=None, ascii_only=True)
    assert printed.strip().isprintable()
    assert printed.isascii()
    assert json.loads(printed) == {name: [name]}


def test_a_name_that_the_locale_cannot_read_or_that_is_no_text_costs_no_result(tmp_path):
    name = "d\udcc3\udca4ta \udcff "  # UTF-8 as a C locale reads it, and a byte that is no UTF-8
    assert json.loads(json_text({"data": name})) == {"data": "däta \ufffd "}
    atomic.write_text(tmp_path / "config.toml", name)
    with output_file(tmp_path / "x.json", option="json") as file:
        file.write_text(name)
    assert [(tmp_path / one).read_text(encoding="utf-8") for one in ("config.toml", "x.json")] == ["däta \ufffd "] * 2
    assert json.loads(json_text("\ud800")) == "?"
