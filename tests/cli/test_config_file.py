"""`--config FILE`: what a run has written makes the same run, what is typed wins, and a wrong file is named."""

import csv
import re
from pathlib import Path

import pytest

from support.command_line import laconic

QUICK = ["--workers", "2", "--epochs", "1", "--model", "linear", "--batch-size", "400"]


def metrics(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def written(path, text):
    path.write_bytes(text.encode(errors="surrogateescape"))
    return str(path)


@pytest.mark.slow
def test_the_config_file_of_a_run_makes_the_same_run_and_what_is_typed_wins(tmp_path):
    network = ["--lr-schedule", "step", "--bandwidth", "1Mbit"]
    line = ["run", "-a", "compskip", "--set", "skip=random", "--set", "skip.probability=0.25", *network]
    original = laconic(*line, *QUICK, "--seed", "3", "--out", str(tmp_path / "a"))
    assert original.code == 0, original.err
    config = str(tmp_path / "a" / "config.toml")
    with_picture = written(tmp_path / "picture.toml", f"plot = ['{tmp_path}/curves.txt']")
    assert (
        f"plot = '{tmp_path}/curves.txt': the ending must be one of"
        in laconic("run", "-a", "sgd", "--config", with_picture).err
    )
    again = laconic("run", "--config", config, "--out", str(tmp_path / "b"))
    assert again.code == 0, again.err
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert (tmp_path / "a" / "config.toml").read_text() == (tmp_path / "b" / "config.toml").read_text()
    other = laconic("run", "--config", config, "--seed", "4", "--set", "skip=never", "--out", str(tmp_path / "c"))
    assert other.code == 0, other.err
    text = (tmp_path / "c" / "config.toml").read_text()
    assert "seed = 4" in text
    assert 'skip = "never"' in text
    assert 'bandwidth = "1Mbit"' in text


@pytest.mark.slow
def test_the_file_of_the_page_makes_the_comparison_that_it_says(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(algorithms = .*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    config = written(tmp_path / "mine.toml", text)
    ended = laconic("compare", "--config", config, "--epochs", "1", "--batch-size", "400", "--out", f"{tmp_path}/runs")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()) == ["ec-sgd", "sgd", "ssgd-mv"]
    assert "lr = 0.5" in (tmp_path / "runs/sgd/config.toml").read_text()
    sparse = (tmp_path / "runs/ssgd-mv/config.toml").read_text()
    assert 'density = "0.05"' in sparse
    assert 'decay_at = "0.5,0.75"' in sparse
    fewer = laconic("compare", "sgd", "--config", config, "--out", str(tmp_path / "fewer"))
    assert fewer.code == 2  # the file's [set] has a method that is not compared
    assert "--set ssgd-mv: not among the algorithms (sgd)" in fewer.err
    assert f"(set from {config})" in fewer.err


WRONG = {
    "an unknown key": ("epoch = 3", "unknown key 'epoch'", "did you mean epochs"),
    "a flag's spelling": ("lr-schedule = 'step'", "unknown key 'lr-schedule'", "did you mean lr_schedule"),
    "a text for a number": ("epochs = 'ten'", "epochs = 'ten' must be a whole number, at least 1"),
    "a fraction for a whole number": ("epochs = 1.5", "epochs = 1.5 must be a whole number"),
    "a truth value for a number": ("epochs = true", "epochs = true must be a whole number"),
    "a number for a truth value": ("record_times = 1", "record_times = 1 must be true or false"),
    "a number for a text": ("bandwidth = 100", 'bandwidth = 100 must be a text, such as "100Mbit"'),
    "a quantity without a unit": ("bandwidth = '100'", "bandwidth: bandwidth '100' must be"),
    "a list for a number": ("epochs = [1, 2]", "epochs = [1, 2] must be a whole number"),
    "no table": ("set = 'density=0.1'", "set = 'density=0.1' must be a table"),
    "a list in a table": ("[set]\ndensity = [0.1]", "set.density = [0.1] must be a number, a text"),
    "a key twice": ("epochs = 1\nepochs = 2", "is not TOML: ", "line 2"),
    "a table twice": ("[set]\na = 1\n[set]\nb = 2", "is not TOML: ", "line 3"),
    "dots and a table": (
        "[set]\n'skip.probability' = 1\nskip = {probability = 1}", "set.skip.probability is given twice"),
    "a syntax error": ("epochs = 1\nworkers 3", "is not TOML: ", "line 2"),
    "no text": ("\udcff", "is not TOML: it is no UTF-8 text"),
    "deep nesting": ("set = " + "[" * 5000, "nested too deeply"),
    "not a number": ("lr = nan", "lr = nan must be above 0 and finite"),
    "the file of a file": ("config = 'a.toml'", "unknown key 'config'"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_refused_in_one_line_with_the_key_or_the_line(what, tmp_path):
    text, *words = WRONG[what]
    config = written(tmp_path / "mine.toml", text)
    ended = laconic("run", "-a", "sgd", "--config", config, "--out", str(tmp_path / "out"))
    assert ended.code == 2
    assert re.match(rf"error: {re.escape(config)}(, line \d+)?: ", ended.err)
    assert not [word for word in words if word not in ended.err], ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_file_a_missing_method_and_values_that_do_not_go_together_are_named(tmp_path):
    ended = laconic("run", "--config", str(tmp_path / "none.toml"))
    assert (ended.code, "none.toml: it cannot be read: No such file" in ended.err) == (2, True)
    assert "cannot be read: Is a directory" in laconic("run", "--config", str(tmp_path)).err
    config = written(tmp_path / "mine.toml", "decay_at = [0.5]")
    assert "--algorithm is missing; give it, or a file that has it with --config" in laconic("run").err
    assert "ALGORITHMS is missing" in laconic("compare", "--config", config).err
    ended = laconic("run", "-a", "sgd", "--config", config)
    assert "--decay-at 0.5 is for --lr-schedule step, not constant" in ended.err
    assert f"(decay_at from {config})" in ended.err
    config = written(tmp_path / "mine.toml", "[set]\ndensty = 0.1")
    ended = laconic("run", "-a", "ssgd-mv", "--config", config)
    assert "did you mean density? (the hyper-parameters are from [set] in" in ended.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algorithm = 'sgd'\n\nepoch = 3\n", "line 3: unknown key 'epoch'; known: "),
        ("algorithm = 'sgd'\n[sets]\nc = 1\n", "line 2: unknown key 'sets'; known: "),
        ("# epochs = 1\nalgorithm = 'sgd'\nepochs = 0\n", "line 3: epochs = 0 must be at least 1"),
        ('algorithm = """\nepochs = 1"""\nepochs = 0', "line 3: epochs = 0 must be at least 1"),
        ("[set]\nepochs = 1\n[epoch]\n", "line 3: unknown key 'epoch'"),
        ("set.c = 1\n'epoch' = 2", "line 2: unknown key 'epoch'"),
        ("\ufeffalgorithm = 'sgd'\r\nbatchsize = 2\r\n", "line 2: unknown key 'batchsize'"),
    ],
)
def test_a_wrong_key_is_named_with_its_line(tmp_path, text, message):
    file = written(tmp_path / "options.toml", text)
    ended = laconic("run", "--config", file)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {file}, {message}")
    if "unknown key 'epoch'" in message:
        assert ended.err.endswith("did you mean epochs?\n")


@pytest.mark.parametrize(
    "options",
    [
        ("--json", "x.png", "--plot", "x.png"),
        ("--plot", "x.png", "--plot", "./x.png"),
        ("--json", "mine.toml", "--config", "mine.toml"),
        ("--out", "o", "--json", "o/summary.json"),
        ("--out", "o", "--plot", "o/curves.png"),
        ("--out", ".", "--faults", "faults.toml"),
    ],
    ids=" ".join,
)
def test_one_file_for_two_options_is_refused_before_the_work(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "mine.toml", "epochs = 1")
    written(tmp_path / "faults.toml", "[[event]]\n")
    ended = laconic("run", "-a", "sgd", *QUICK, *options)
    assert ended.code == 2
    assert "the same file" in ended.err or "would be replaced" in ended.err
    assert ended.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml", "faults.toml"}


def test_a_mistake_that_torch_knows_of_is_the_only_line_of_a_run_over_processes():
    ended = laconic("run", "-a", "ec-sgd", "--layout", "sharded", "--driver", "processes")
    assert ended.err.startswith("error: --layout 'sharded' does not go with ec-sgd")
    assert ended.err.count("\n") == 1
