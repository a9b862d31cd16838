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
from laconic.lab.outputs import output_file, output_folder, refuse_shared_files
from laconic.lab.own_results import foreign_files, own_files
from laconic.lab.runs.times import Phase, PhaseTimes
from support.command_line import laconic

CONFIG = 'algorithm = "sgd"\nworkers = 1\ndriver = "simulated"\nlayout = "auto"\nseed = 0\n'
OWN = {
    "config.toml": CONFIG + 'faults = "plan.toml"\n', "faults.toml": "", "times.csv": "rank,round,what,start_s,end_s\n",
    "metrics.csv": "epoch,round,train_loss,test_accuracy\n", "summary.json": '{"settings": {"algorithm": "sgd"}}',
    "checkpoint.pt": "laconic run\n", "curves.png": "",
}  # fmt: skip


def write_results(folder):
    """Files as a run writes them, by what is at their beginning."""
    folder.mkdir(exist_ok=True)
    for name, text in OWN.items():
        (folder / name).write_text(text)


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
    write_results(tmp_path / "sgd")
    write_results(tmp_path)
    (tmp_path / "notes.txt").touch()
    words = refusal(lambda: output_folder(tmp_path, option="out", overwrite=False))
    assert "faults.toml" in words
    assert "overwrite=True" in words
    with output_folder(tmp_path, option="out", overwrite=True) as folder:
        assert (tmp_path / "faults.toml").exists(), "nothing is removed before the work begins"
        folder.clear()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["notes.txt"]


@pytest.mark.parametrize("name", [*OWN, "curves.svg"])
@pytest.mark.parametrize("where", ["", "sgd"], ids=["the folder", "the folder of a method"])
def test_a_file_of_others_that_has_the_name_of_a_result_is_refused_and_remains(tmp_path, name, where):
    folder = tmp_path / where
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("mine, for instance lr = 0.1\n")

    def use():
        with output_folder(tmp_path, option="out", overwrite=True) as used:
            used.inner("sgd")
            used.clear()

    words = refusal(use)
    assert f"holds {name}, which no run of laconic has written; move it" in words
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


def test_the_picture_of_a_comparison_above_its_runs_is_a_result(tmp_path):
    write_results(tmp_path / "sgd")
    (tmp_path / "curves.png").touch()
    assert "curves.png" in refusal(lambda: output_folder(tmp_path, option="out", overwrite=False))
    with output_folder(tmp_path, option="out", overwrite=True) as folder:
        folder.clear()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_folders_of_another_program_beside_the_results_are_left_alone(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.toml", "metrics.csv", "checkpoint.pt"):
        (other / name).write_text("learning_rate = 1\n")
    with output_folder(tmp_path, option="out", overwrite=True) as folder:
        folder.clear()
    assert len(list(other.iterdir())) == 3


def test_the_files_that_a_run_writes_are_known_again(tmp_path):
    ended = laconic("run", "-a", "sgd", "--model", "linear", "--epochs", "1", "--batch-size", "300", "--save-every",
                    "1", "--out", str(tmp_path))  # fmt: skip
    assert ended.code == 0, ended.err
    assert {path.name for path in own_files(tmp_path)} == {path.name for path in tmp_path.iterdir()}
    assert not foreign_files(tmp_path)
    times = PhaseTimes(phases=(Phase(0, 0, "compute", 0.0, 1.0),), accuracy_s=0.0)
    times.write(tmp_path)
    assert tmp_path / "times.csv" in own_files(tmp_path)


def test_a_fault_plan_of_ones_own_is_not_taken_for_a_runs_copy(tmp_path):
    write_results(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG + f"faults = {str(tmp_path / 'faults.toml')!r}\n")
    assert [path.name for path in foreign_files(tmp_path)] == ["faults.toml"]


@pytest.mark.parametrize("how", ["spelled otherwise", "symbolic link", "hard link"])
def test_one_file_for_two_options_is_refused(tmp_path, how):
    one, other = tmp_path / "a.json", tmp_path / "b.png"
    one.write_text("before")
    if how == "spelled otherwise":
        other = tmp_path / "sub" / ".." / "a.json"
        (tmp_path / "sub").mkdir()
    elif how == "symbolic link":
        other.symlink_to(one)
    else:
        other.hardlink_to(one)
    words = refusal(lambda: refuse_shared_files([("json", one), ("plot", other)], []))
    assert "write the same file" in words
    assert "need the same file" in refusal(lambda: refuse_shared_files([("json", one)], [("config", other)]))
    refuse_shared_files([("json", one), ("plot", tmp_path / "c.png")], [("config", tmp_path / "d.toml")])
    refuse_shared_files([("json", Path("/dev/null")), ("plot", Path("/dev/null"))], [])


def test_a_file_that_a_run_writes_into_its_folder_is_not_given_to_another_option(tmp_path):
    for file in (tmp_path / "config.toml", tmp_path / "sgd" / "summary.json", tmp_path / "curves.png"):
        assert "write the same file" in refusal(lambda file=file: refuse_shared_files([("json", file)], [], tmp_path))
    plan = [("faults", tmp_path / "faults.toml")]
    assert "would be replaced" in refusal(lambda: refuse_shared_files([], plan, tmp_path))
    refuse_shared_files([("json", tmp_path / "figures.json")], [("faults", tmp_path / "plan.toml")], tmp_path)


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
