"""`--save-every` and `--resume`: a run that was stopped goes on from its last saved epoch, or is refused by name."""

import csv
import json
import os
import pickle
import signal
from hashlib import blake2b
from io import BytesIO

import pytest
import torch

from laconic import ALGORITHMS
from support.command_line import laconic
from support.deadlines import DEADLINE_S
from support.programs import Program, command

# Error feedback that ends its command in round 11, the second of epoch 3, as long as a file says how.
ENDING = '''
"""Error feedback that ends its command, for a test."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from laconic import algorithm
from laconic.algorithms.ec_sgd import ECSGD

HOW = Path({how!r})


@algorithm("ending")
@dataclass(frozen=True, kw_only=True)
class Ending(ECSGD):
    """Error feedback."""

    source = "a test"

    def work(self, me):
        if me.round == 1 and HOW.exists() and HOW.read_text().endswith(".pt"):
            Path(HOW.read_text()).mkdir(exist_ok=True)
        if me.round == 11 and me.rank == 1 and HOW.exists():
            if HOW.read_text() == "raise":
                raise RuntimeError("the end")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work(me)
'''
LINE = ["run", "-a", "ending", "--workers", "2", "--model", "linear", "--batch-size", "140", "--bandwidth", "1Mbit"]
# That is 5 steps an epoch.


@pytest.fixture
def ending(tmp_path):
    """The arguments that load a method which ends its command, and the file that says how."""
    how = tmp_path / "how"
    file = tmp_path / "ending.py"
    file.write_text(ENDING.format(how=str(how)))
    yield ["--load", str(file)], how
    ALGORITHMS.pop("ending", None)


def begin(ending, tmp_path, *more):
    """Save a run after each epoch until its method raises in epoch 3 of 4."""
    load, how = ending
    how.write_text("raise")
    out = tmp_path / "out"
    ended = laconic(*load, *LINE, "--epochs", "4", "--save-every", "1", "--out", str(out), *more)
    assert ended.code != 0, ended.err
    assert "the end" in ended.err
    how.unlink()
    return out


def metrics(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(folder):
    """What must be equal: all rows, and all figures of the summary."""
    return metrics(folder), json.loads((folder / "summary.json").read_text())


def everything_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_a_run_that_ended_early_goes_on_and_is_that_without_a_break(ending, tmp_path):
    load, _ = ending
    out = begin(ending, tmp_path)
    assert [row["epoch"] for row in metrics(out)] == ["1", "2"]
    again = laconic(*load, *LINE, "--epochs", "4", "--resume", "--out", str(out))
    assert again.code == 0, again.err
    assert "ending goes on after epoch 2 of 4, round 10" in again.err
    straight = laconic(*load, *LINE, "--epochs", "4", "--out", str(tmp_path / "straight"))
    assert straight.code == 0, straight.err
    assert figures(out) == figures(tmp_path / "straight")
    assert again.out.splitlines()[:-1] == straight.out.splitlines()[:-1]
    once_more = laconic(*load, *LINE, "--epochs", "4", "--resume", "--out", str(out))
    assert once_more.code == 0, once_more.err
    assert "is finished; it is not run again" in once_more.err
    assert once_more.out == again.out
    longer = laconic(*load, *LINE, "--epochs", "5", "--resume", "--out", str(out))
    assert longer.code == 0, longer.err
    assert "ending goes on after epoch 4 of 5" in longer.err
    assert metrics(out)[:4] == metrics(tmp_path / "straight")
    assert len(metrics(out)) == 5


def test_nothing_saved_begins_anew_and_says_so_and_saving_needs_a_folder(tmp_path):
    out = tmp_path / "out"
    ended = laconic("run", "-a", "sgd", "--model", "linear", "--batch-size", "300", "--epochs", "1", "--resume",
                    "--save-every", "1", "--out", str(out))  # fmt: skip
    assert ended.code == 0, ended.err
    assert "sgd has nothing saved to go on from; it begins anew" in ended.err
    assert (out / "checkpoint.pt").exists()
    assert "--save-every 1 saves into a folder, so it needs --out FOLDER" in laconic(
        "run", "-a", "sgd", "--save-every", "1").err  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run -a asgd --driver processes", "asgd over processes cannot go on with the same figures"),
        ("compare sgd asgd --driver processes", "asgd over processes cannot go on with the same figures"),
        ("run -a sgd --driver processes --record-times", "--save-every does not go with --record-times"),
        ("run -a sgd --save-every 0", "--save-every 0 must be at least 1"),
    ],
)
def test_what_cannot_go_on_exactly_is_refused_before_it_trains(line, words, tmp_path):
    out = tmp_path / "out"
    ended = laconic(*line.split(), *([] if "every" in line else ["--save-every", "1"]), "--out", str(out))
    assert ended.code == 2
    assert words in ended.err
    assert not out.exists()


OTHERS = {
    "another number": (["--seed", "1"], "another seed: 0 there, 1 now"),
    "another learning rate": (["--lr", "0.5"], "another lr: "),
    "a hyper-parameter": (["--set", "compressor=top-k"], "another set compressor: "),
    "a text": (["--bandwidth", "2Mbit"], "another bandwidth: '1Mbit' there, '2Mbit' now"),
    "what was not set": (["--latency", "1ms"], "another latency: not set there, '1ms' now"),
    "other data": (["--partition", "fixed"], "another partition: 'resample' there, 'fixed' now"),
    "fewer epochs": (["--epochs", "3"], "with epochs 4, and now they are 3; a run can go on for more epochs, but not"),
}  # fmt: skip


def test_a_run_with_other_settings_versions_or_files_is_refused_by_name_and_nothing_changes(ending, tmp_path):
    load, _ = ending
    out = begin(ending, tmp_path)
    before = everything_in(out)
    line = [*load, *LINE, "--epochs", "4", "--resume", "--out", str(out)]
    for options, words in OTHERS.values():
        ended = laconic(*replaced(line, options))
        assert ended.code == 2, ended.err
        assert f"--resume: {out / 'checkpoint.pt'}" in ended.err
        assert words in ended.err
    file = tmp_path / "ending.py"
    file.write_text(file.read_text() + "\n# changed\n")
    assert "another --load ending.py/hash of file 0" in laconic(*line).err
    assert everything_in(out) == before


def replaced(line, options):
    """The line with options of its own in place of those that it has; an option is given once."""
    name, value = options
    return [*line[: line.index(name)], *options, *line[line.index(name) + 2 :]] if name in line else [
        *line, name, value]  # fmt: skip


def test_more_epochs_than_before_are_refused_where_they_change_the_past(tmp_path):
    line = ["run", "-a", "ec-sgd", "--workers", "2", "--model", "linear", "--batch-size", "140", "--save-every", "2"]
    for options, words in (
        (["--lr-schedule", "cosine"], "with the cosine schedule more epochs change the learning rates of those"),
        (["--local-steps", "3"], "its last round came after fewer than 3 local steps"),
    ):
        out = str(tmp_path / options[1])
        assert laconic(*line, *options, "--epochs", "1", "--out", out).code == 0
        ended = laconic(*line, *options, "--epochs", "2", "--resume", "--out", out)
        assert ended.code == 2, ended.err
        assert words in ended.err


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


def sealed(content):
    """A file with any content and the right hash."""
    data = content if isinstance(content, bytes) else None
    if data is None:
        stream = BytesIO()
        torch.save(content, stream)
        data = stream.getvalue()
    return b"laconic run\n" + blake2b(data, digest_size=32).digest() + data


def changed(path, change):
    """The content of a saved run, changed, with the right hash."""
    content = torch.load(BytesIO(path.read_bytes()[44:]), weights_only=True)
    change(content)
    return sealed(content)


HOSTILE = {
    "cut": (lambda path: path.read_bytes()[:-100], "is damaged"),
    "empty": (lambda path: b"", "is no saved run"),
    "another file": (lambda path: b"PK" + b"x" * 100, "is no saved run of laconic"),
    "a bit": (lambda path: path.read_bytes()[:-500] + b"?" + path.read_bytes()[-499:], "is damaged"),
    "code": (lambda path: sealed(pickle.dumps(Trap())), "holds more than tensors and plain data"),
    "a list": (lambda path: sealed([1, 2]), "is not complete"),
    "a version": (
        lambda path: changed(path, lambda run: run["made by"].update(laconic="0.0.9")),
        "was made with version '0.0.9' of laconic",
    ),
    "a wire format": (
        lambda path: changed(path, lambda run: run["made by"].update({"wire format": "1"})),
        "was made with version '1' of the wire format, and this is '2'",
    ),
    "a row": (lambda path: changed(path, lambda run: run["state"]["rows"][0].update(epoch=7)), "its rows are not"),
    "a negative count": (lambda path: changed(path, lambda run: run["state"]["rows"][1].update(round=-1)), "round"),
    "a shape": (
        lambda path: changed(path, lambda run: run["model"].update(dict.fromkeys(run["model"], torch.zeros(3)))),
        "of the model is",
    ),
    "no optimizer": (lambda path: changed(path, lambda run: run["optimizer"].clear()), "does not fit"),
    "another decay": (
        lambda path: changed(path, lambda run: run["optimizer"]["param_groups"][0].update(weight_decay=9.0)),
        "the inner optimizer's options are",
    ),
    "another round": (
        lambda path: changed(path, lambda run: run["optimizer"]["laconic"]["driver"].update(rounds=9)), "of round 9"),
    "a memory": (
        lambda path: changed(
            path, lambda run: run["optimizer"]["laconic"]["driver"]["workers"][0].update(memory={"residual": 3})
        ),
        "does not fit",
    ),
}  # fmt: skip


@pytest.mark.slow
def test_a_file_that_is_damaged_old_or_hostile_is_refused_and_runs_no_code(ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load, _ = ending
    out = begin(ending, tmp_path)
    file = out / "checkpoint.pt"
    data = file.read_bytes()
    wrong = []
    for what, (make, words) in HOSTILE.items():
        file.write_bytes(data)
        file.write_bytes(make(file))
        ended = laconic(*load, *LINE, "--epochs", "4", "--resume", "--out", str(out))
        if (ended.code, words in ended.err, str(file) in ended.err) != (2, True, True):
            wrong.append((what, ended.code, ended.err))
    assert not wrong
    assert not (tmp_path / "trapped").exists()


@pytest.mark.filterwarnings("always::laconic.statements.LaconicWarning")
def test_a_file_that_cannot_be_written_costs_a_warning_and_not_the_run(ending, tmp_path):
    load, how = ending
    how.write_text(str(tmp_path / "out" / "checkpoint.pt"))  # a folder of that name
    ended = laconic(*load, *LINE, "--epochs", "2", "--save-every", "1", "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.err
    assert (
        f"{tmp_path / 'out' / 'checkpoint.pt'}: Is a directory; the run goes on, but epoch 1 is not saved" in ended.err
    )
    assert len(metrics(tmp_path / "out")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["simulated", pytest.param("processes", marks=pytest.mark.nightly)])
def test_a_killed_comparison_goes_on_where_each_method_was(driver, ending, tmp_path):
    load, how = ending
    how.write_text("kill")
    line = [*load, "compare", "sgd", "ending", "--workers", "2", "--model", "linear", "--batch-size", "140", "--driver",
            driver, "--epochs", "3"]  # fmt: skip
    saving = ["--save-every", "1", "--out", str(tmp_path / "out")]
    killed = Program(tmp_path, "killed", command, [*line, *saving])
    _, err = killed.communicate(timeout=DEADLINE_S)
    assert killed.returncode == (-signal.SIGKILL if driver == "simulated" else 2), err
    how.unlink()
    again = laconic(*line, "--resume", "--out", str(tmp_path / "out"))
    assert again.code == 0, again.err
    assert "sgd is finished" in again.err.replace(f" in {tmp_path / 'out' / 'sgd'}", "")
    assert "ending goes on after epoch 2 of 3, round 10" in again.err
    straight = laconic(*line, "--out", str(tmp_path / "straight"))
    assert straight.code == 0, straight.err
    for method in ("sgd", "ending"):
        (rows, _), (others, _) = (figures(tmp_path / name / method) for name in ("out", "straight"))
        for row in (*rows, *others):
            if driver == "processes":
                del row["seconds"]
        assert rows == others
