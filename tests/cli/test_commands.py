"""The command line as a user meets it: what it prints, what it writes, and one line for every mistake."""

import csv
import json
import re
import tomllib
import warnings

import pytest

import laconic as library
from support.command_line import laconic
from support.inputs import over_inputs

QUICK = ("--epochs", "1", "--batch-size", "32")


def test_list_names_every_algorithm():
    ended = laconic("list")
    assert ended.code == 0
    ours = [name for name, cls in library.ALGORITHMS.items() if cls.__module__.startswith("laconic.")]
    assert all(f"\n{name} " in ended.out for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(library.ALGORITHMS))
def test_show_prints_source_symbols_hyperparameters_with_ranges_and_claims(name):
    ended = laconic("show", name)
    cls = library.ALGORITHMS[name]
    words = " ".join(ended.out.split())
    assert ended.code == 0
    assert cls.source.split(",")[0] in words
    assert "Paper -> here" in words
    assert "Equations: " in words
    assert re.search(r"paper: +https://(arxiv.org/abs/|doi.org/10)", ended.out)
    assert "claims" in words
    line = re.search(r"^Python: +(laconic\..*)$", ended.out, flags=re.MULTILINE)
    assert line is not None
    assert eval(line[1], {"laconic": library}) == cls()
    assert all(key in ended.out for key in cls().settings() if "." not in key)


@pytest.mark.parametrize("name", ["sasg", "lasg", "lag"])
def test_a_method_that_evaluates_twice_shows_what_its_closure_must_not_keep(name):
    shown = " ".join(laconic("show", name).out.split())
    text = "the closure may be called twice in a step: no state but the model's parameters and buffers"
    assert (text in shown) is (name != "lag")


def test_gossip_shows_the_spectral_gap_of_each_graph_and_of_the_one_it_ran_on():
    assert "ring 0.127" in " ".join(laconic("show", "dsgd").out.split())
    ended = laconic("run", "-a", "dsgd", "--model", "linear", *QUICK)
    assert "spectral gap 0.667" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("name", "at_a_worker", "at_the_server"),
    [
        ("compskip", "momentum 1 d, residual 1 d", "residual 1 d"),
        ("ssgd-mv-ad", "residual 1 d, votes 0.0195 d", "votes 0.195 d"),
        ("lag", "previous_parameters 1 d, uploaded 1 d, uploaded_parameters 1 d", "stored 10 d"),
        ("sgd", "nothing of d's length", "nothing of d's length"),
    ],
)
def test_what_a_method_remembers_is_shown(name, at_a_worker, at_the_server):
    shown = " ".join(laconic("show", name).out.split())
    assert f"memories of a worker {at_a_worker} memories of the server of 10 {at_the_server} also" in shown


def test_the_accounting_of_compskip_reproduces_the_papers_figures():
    ended = laconic("show", "compskip", "--accounting")
    for figure in ("82.05 GB", "246.16 GB", "328.2 GB", "410.3 GB", "492.3 GB", "574.4 GB", "0.5"):
        assert figure in ended.out


def test_accounting_of_a_method_without_published_figures_counts_and_says_so():
    ended = laconic("show", "ssgd-mv", "--accounting")
    assert ended.code == 0
    assert "up of a worker and round   51.25 KB; 78.05 times fewer than 32 bits a parameter -" in ended.out
    assert "No traffic figures of the paper of ssgd-mv are kept here" in ended.out


def test_show_takes_hyperparameters_into_its_lines():
    ended = laconic("show", "compskip", "--set", "keep=0.25", "--set", "server_skip=random", "--json", "-")
    shown = json.loads(ended.out)
    assert shown["python"] == "laconic.CompSkip(keep=0.25, server_skip=laconic.RandomSkips(probability=0.1))"
    assert shown["links"] == ["https://doi.org/10.1109/ACCESS.2023.3315331"]


@pytest.mark.parametrize("arguments", [("list",), ("show", "sgd"), ("show", "sgd", "--accounting")], ids=" ".join)
def test_json_is_written_beside_the_table_or_printed_in_its_place(tmp_path, arguments):
    printed = laconic(*arguments, "--json", "-")
    ended = laconic(*arguments, "--json", str(tmp_path / "new" / "x.json"))
    assert (printed.code, ended.code, printed.err, ended.err) == (0, 0, "", "")
    assert (tmp_path / "new" / "x.json").read_text() == printed.out
    assert json.loads(printed.out)
    assert ended.out.endswith(f"wrote {tmp_path}/new/x.json\n")
    assert "wrote" not in laconic("-q", *arguments, "--json", str(tmp_path / "x.json")).out
    refused = laconic(*arguments, "--json", "/dev/null/x.json")
    assert (refused.code, refused.out) == (2, "")
    assert "--json /dev/null/x.json cannot be written" in refused.err


@pytest.mark.slow
def test_a_simulated_run_writes_config_metrics_summary_and_curves(tmp_path):
    out = tmp_path / "run"
    ended = laconic(
        "run", "--algorithm", "compskip", "--set", "c=0.1", "--set", "skip.probability=0.4", "--workers", "3",
        "--bandwidth", "10Mbit", "--latency", "5ms", "--epochs", "2", "--lr", "0.01", "--out", str(out),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["set"]["skip.probability"] == "0.4"
    assert config["lr"] == 0.01
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert int(rows[1]["up_wire_bytes"]) > int(rows[0]["up_wire_bytes"]) > 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["parameters"] == 38410
    assert summary["bits_per_worker_and_round"]["expected_paper_up"] == pytest.approx(0.6 * 0.3 * 38410)
    assert float(rows[1]["seconds"]) > 2 * summary["traffic"]["rounds"] * 0.005
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_curves_are_written_to_files_of_one_s_own_which_are_checked_before_the_run(tmp_path):
    files = [tmp_path / "new" / "curves.svg", tmp_path / "curves.PDF"]
    small = ("run", "-a", "sgd", "--model", "linear", "--epochs", "1", "--batch-size", "300")
    ended = laconic(*small, *(word for file in files for word in ("--plot", str(file))))
    assert ended.code == 0, ended.err
    assert [file.read_bytes()[:5] for file in files] == [b"<?xml", b"%PDF-"]
    assert all(f"wrote {file}\n" in ended.out for file in files)
    for wrong, why in (
        (tmp_path / "curves.jpg", "the ending must be one of .png, .svg, .pdf"),
        (tmp_path / "curves.PDF" / "a.svg", "curves.PDF is not a folder"),
    ):
        refused = laconic(*small, "--plot", str(wrong))
        assert (refused.code, refused.out) == (2, "")
        assert f"--plot {wrong}" in refused.err
        assert why in refused.err
        assert "epoch" not in refused.err


@pytest.mark.slow
def test_compare_prints_one_table_and_draws_one_picture(tmp_path):
    ended = laconic(
        "compare", "sgd", "signsgd-mv", "--set", "signsgd-mv.momentum=0.5", "--lr-of", "sgd=0.2", *QUICK,
        "--out", str(tmp_path),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "sgd " in ended.out
    assert "signsgd-mv" in ended.out
    assert (tmp_path / "curves.png").exists()
    config = tomllib.loads((tmp_path / "signsgd-mv" / "config.toml").read_text())
    assert config["set"]["momentum"] == "0.5"
    assert tomllib.loads((tmp_path / "sgd" / "config.toml").read_text())["lr"] == 0.2


@pytest.mark.slow
def test_a_run_repeated_with_one_seed_gives_the_same_numbers(tmp_path):
    for place in ("a", "b"):
        laconic(
            "run", "-a", "dropsign", "--set", "c=0.1", "--set", "server_c=0.1", *QUICK, "--out", str(tmp_path / place)
        )
    assert (tmp_path / "a/metrics.csv").read_text() == (tmp_path / "b/metrics.csv").read_text()


MISTAKES = {
    "an unknown algorithm, with near misses": (
        ("run", "-a", "compskp"), ("--algorithm 'compskp'", "did you mean compskip")),
    "auto, which ranks choose by": (
        ("run", "-a", "auto"),
        ("--algorithm 'auto': a command runs and records one method", "laconic plan", "planning.choose")),
    "auto beside a method": (("compare", "auto", "sgd"), ("error: 'auto': a command", "DistributedOptimizer")),
    "show of an unknown algorithm": (("show", "drop-sign"), ("'drop-sign'", "did you mean dropsign")),
    "an unknown key, with near misses": (
        ("run", "-a", "compskip", "--set", "keeep=0.2"), ("compskip: unknown key 'keeep'", "did you mean keep")),
    "a key without a value": (("run", "-a", "compskip", "--set", "keep"), ("--set 'keep'", "KEY=VALUE")),
    "a rate without a method": (("compare", "sgd", "--lr-of", "0.1"), ("--lr-of '0.1'", "NAME=LR", "such as sgd=0.1")),
    "a label without a method": (("compare", "sgd", "--as", "x"), ("--as 'x'", "LABEL=METHOD, such as slow=sgd")),
    "a number without a name": (("run", "-a", "sgd", "--inner-set", "1"), ("--inner-set '1'", "such as momentum=0.9")),
    "a fault plan that is not there": (
        ("run", "-a", "sgd", "--faults", "/no/plan.toml"), ("--faults /no/plan.toml: it cannot be read: No such file",),
    ),
    "a fault plan that is a folder": (("run", "-a", "sgd", "--faults", "/"), ("--faults /", "Is a directory")),
    "a key given twice": (("run", "-a", "compskip", "--set", "c=1", "--set", "c=2"), ("--set c", "twice")),
    "a probability out of range": (
        ("run", "-a", "compskip", "--set", "skip.probability=1.5"), ("probability=1.5", "[0, 1)")),
    "a share out of range": (("run", "-a", "dropsign", "--set", "keep=0"), ("keep=0", "(0, 1]")),
    "a number that is none": (("run", "-a", "dropsign", "--set", "keep=much"), ("keep='much'", "must be a number")),
    "no workers": (("run", "-a", "sgd", "--workers", "0"), ("--workers 0", "1 .. 65536")),
    "no epochs": (("run", "-a", "sgd", "--epochs", "0"), ("--epochs 0", "at least 1")),
    "a batch larger than the data": (
        ("run", "-a", "sgd", "--batch-size", "999999"), ("--batch-size 999999", "359")),
    "a batch larger than the data, for real processes": (
        ("run", "-a", "sgd", "--driver", "processes", "--batch-size", "999999"),
        ("error: --batch-size 999999", "359")),
    "an unknown data set": (("run", "-a", "sgd", "--dataset", "mnits"), ("'mnits'", "did you mean mnist")),
    "a data set without its files": (("run", "-a", "sgd", "--dataset", "mnist"), ("mnist", "--data")),
    "a data folder that is not there": (
        ("run", "-a", "sgd", "--dataset", "fashion-mnist", "--data", "/nowhere/at/all"),
        ("train-images-idx3-ubyte", "sha256")),
    "an unknown model": (("run", "-a", "sgd", "--model", "mpl"), ("'mpl'", "did you mean mlp")),
    "an unknown server": (("run", "-a", "sgd", "--layout", "rank1"), ("'rank1'", "did you mean rank0")),
    "a server that the method does not admit": (
        ("run", "-a", "ec-sgd", "--layout", "sharded"), ("ec-sgd", "use rank0 or dedicated")),
    "a rate without a unit": (("run", "-a", "sgd", "--bandwidth", "100"), ("100", "Mbit")),
    "no bandwidth": (("run", "-a", "sgd", "--bandwidth", "0Mbit"), ("0Mbit", "above 0")),
    "a bandwidth for real processes": (
        ("run", "-a", "sgd", "--driver", "processes", "--bandwidth", "1Mbit"), ("--bandwidth", "simulated")),
    "no bandwidth at all": (("run", "-a", "sgd", "--bandwidth", "0"), ("--bandwidth: bandwidth '0'", "100Mbit")),
    "a latency below nothing": (
        ("run", "-a", "sgd", "--latency", "-1ms"), ("--latency: duration '-1ms'", "above 0", "leave the setting out")),
    "a compute time below nothing": (
        ("run", "-a", "sgd", "--compute", "-1ms"), ("--compute: duration '-1ms'", "above 0")),
    "a staleness below nothing": (
        ("run", "-a", "asgd", "--set", "max_staleness=-1"), ("asgd: max_staleness=-1", "[0, inf)")),
    "a graph in two parts": (
        ("run", "-a", "dsgd", "--set", "graph=0-1 2-3"),
        ("dsgd: graph='0-1 2-3' of 4 workers", "workers 0, 1 are not connected to 2, 3", "add an edge between")),
    "a graph in two parts, over processes": (
        ("run", "-a", "dsgd", "--driver", "processes", "--set", "graph=0-1 2-3"),
        ("are not connected to 2, 3", "add an edge")),
    "weights that are not doubly stochastic": (
        ("run", "-a", "dsgd", "--workers", "3", "--set", "graph=0-1:0.9 1-2:0.9"),
        ("the edges of worker 1 sum to 1.8", "must sum to at most 1")),
    "a plan without bandwidth": (
        ("plan", "--params", "1M", "--workers", "4", "--bandwidth", "0Mbit"),
        ("--bandwidth: bandwidth '0Mbit'", "above 0")),
    "a plan with a latency below nothing": (
        ("plan", "--params", "1M", "--workers", "4", "--bandwidth", "1Gbit", "--latency", "-1ms"),
        ("--latency: duration '-1ms'", "above 0")),
    "a learning rate of nothing": (("run", "-a", "sgd", "--lr", "0"), ("--lr 0", "above 0")),
    "an unknown driver": (("run", "-a", "sgd", "--driver", "mpi"), ("'mpi'", "simulated, processes")),
    "a port that is no port": (
        ("run", "-a", "sgd", "--driver", "processes", "--port", "70000"), ("--port 70000", "65535")),
    "a key of an algorithm that is not compared": (
        ("compare", "sgd", "--set", "dropsign.c=1"), ("--set dropsign", "not among the algorithms (sgd)")),
    "an algorithm compared with itself": (("compare", "sgd", "sgd"), ("sgd is named twice",)),
    "a file to load that is not there": (
        ("--load", "nowhere.py", "list"), ("--load nowhere.py", "existing Python file")),
}  # fmt: skip


@over_inputs("mistake", MISTAKES)
def test_a_mistake_ends_with_one_line_that_names_it_and_the_remedy(mistake):
    arguments, expected = MISTAKES[mistake]
    ended = laconic(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert re.sub(r"^starting \d+ processes\n", "", ended.err).startswith("error: ")
    for words in expected:
        assert words in ended.err, ended.err


def test_a_residual_that_would_grow_is_warned_of_once_and_in_one_line():
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        ended = laconic(
            "run", "-a", "ec-sgd", "--set", "compressor=sparsified", "--set", "compressor.keep=0.3", "--workers", "2",
            "--model", "linear", *QUICK,
        )  # fmt: skip
    assert ended.code == 3, "it diverges"
    assert ended.err.count("warning: ec-sgd: what compressor=sparsified leaves out is larger than the vector") == 1
    assert "experiment.py" not in ended.err


def test_a_truncated_data_file_is_refused_before_anything_starts(tmp_path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(10))
    ended = laconic("run", "-a", "sgd", "--dataset", "mnist", "--data", str(tmp_path))
    assert ended.code == 2
    assert "train-images-idx3-ubyte" in ended.err


def test_a_misspelt_option_is_refused():
    ended = laconic("run", "-a", "sgd", "--epoch", "3")
    assert ended.code == 2
    assert "--epoch" in ended.err


def test_a_comparison_takes_a_learning_rate_for_all_and_one_for_each():
    short = ("--model", "linear", "--epochs", "1", "--batch-size", "300")
    ended = laconic("compare", "sgd", "signsgd-mv", *short, "--lr", "0.02", "--lr-of", "sgd=0.3", "--json", "-", "-q")
    assert (ended.code, ended.err) == (0, "")
    runs = json.loads(ended.out)["runs"]
    assert [(run["name"], run["options"]["lr"]) for run in runs] == [("sgd", 0.3), ("signsgd-mv", 0.02)]


def test_a_comparison_takes_a_fault_plan(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('[[event]]\nkind = "lost"\nworker = 1\nround = 1\n')
    short = ("--model", "linear", "--epochs", "1", "--batch-size", "100")
    ended = laconic(
        "compare", "dist-ef", "ec-sgd", *short, "--layout", "rank0", "--faults", str(plan), "-q", "--json", "-"
    )
    assert ended.code in (0, 3), ended.err
    runs = json.loads(ended.out)["runs"]
    assert [run["traffic"]["faults"] != {} for run in runs] == [True, True]


def test_json_and_out_are_looked_at_before_the_work():
    for option in ("--json", "--out"):
        ended = laconic("run", "-a", "sgd", option, "/dev/null/x")
        assert ended.code == 2
        assert f"{option} /dev/null/x" in ended.err
        assert "epoch" not in ended.err
