"""`laconic plan`: table, sentence, files and refusals."""

import json

import pytest

import laconic as library
from support.command_line import laconic

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

LINK = ("--workers", "4", "--bandwidth", "10Mbit", "--latency", "1ms", "--no-measure")
SMALL = ("--params", "10K", *LINK)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", "80")
        return planned_in_full(tmp_path_factory)


def planned_in_full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    files = ("--json", str(folder / "plan.json"), "--plot", str(folder / "plan.PDF"))
    return laconic("plan", *SMALL, "--all", "--compute", "5ms", *files), folder


# Of these, the number of parameters is not enough to plan.
NEEDING_SHAPES = {name for name, cls in library.ALGORITHMS.items() if cls.needs_shapes}


def test_every_method_has_its_rows_and_fits_eighty_columns(everything):
    ended, _ = everything
    assert ended.code == 0, ended.err
    assert all((f"\n{name} " in ended.out) == (name not in NEEDING_SHAPES) for name in library.ALGORITHMS)
    table = ended.out.split("beats plain:")[0].splitlines()
    assert max(len(line) for line in table if "wrote" not in line) <= 80
    assert "plain" in ended.out


def test_the_file_has_a_row_for_each_choice_and_the_recommendation(everything):
    _, folder = everything
    data = json.loads((folder / "plan.json").read_text())
    assert {row["method"] for row in data["choices"]} == set(library.ALGORITHMS) - NEEDING_SHAPES
    assert {row["layout"] for row in data["choices"] if row["method"] == "sgd"} == {"rank0", "dedicated", "sharded"}
    assert (data["parameters"], data["bytes_per_s"], data["latency_s"]) == (10_000, 1.25e6, 1e-3)
    best = data["choices"][0]
    assert data["recommended"] == {"method": best["method"], "layout": best["layout"]}
    assert (folder / "plan.PDF").read_bytes().startswith(b"%PDF")


# One plan of one method, on two sites with unlike directions.
SITES = ("--sites", "2+2", "--between", "1Mbit,20ms", "--up", "10Mbit", "--down", "50Mbit", "--no-measure")


@pytest.mark.slow
def test_five_rows_are_shown_and_the_others_on_request(everything):
    every, _ = everything
    ended = laconic("plan", *SMALL)
    rows = [line for line in ended.out.split("Take ")[0].splitlines()[3:] if line.strip()]
    assert len(rows) == 5 + 1 + 3  # plain all-reduce, and what people use today
    assert "The 5 fastest of" in ended.out
    assert "fastest of" not in every.out
    assert {"DDP", "DDP + fp16", "DDP + PowerSGD"} <= {row.split("  ")[0].split(" allreduce")[0] for row in rows}


@pytest.mark.slow
def test_what_is_not_given_makes_every_speed_up_an_upper_bound():
    of = ("plan", "compskip", "dsgd", "--params", "10K", "--workers", "4", "--bandwidth", "10Mbit", "--no-measure")
    ended = laconic(*of)
    words = " ".join(ended.out.split())
    assert "latency not given, gradient time not given" in words
    assert "An upper bound: latency, gradient time and coding time are not known" in words
    assert "times of a step, not to an accuracy" in words
    missing, given = (
        json.loads(laconic(*of, *more, "--json", "-").out) for more in ((), ("--latency", "0", "--compute", "0"))
    )
    assert (missing["latency_s"], missing["compute_s"]) == (None, None)
    assert (given["latency_s"], given["compute_s"]) == (0, 0)
    assert missing["not_given"] == ["latency", "gradient time", "coding time"]
    assert given["not_given"] == ["coding time"]
    # Two messages of a ring of neighbors against six of an all-reduce: the longer the latency, the faster it is.
    rows = {row["method"]: row for row in missing["choices"]}
    assert rows["dsgd"]["speed_up"] < 1
    assert rows["dsgd"]["speed_up_upper_bound"] == pytest.approx(3, rel=1e-3)


@pytest.mark.slow
def test_a_plan_of_two_sites_prints_the_python_the_lr_and_the_bytes_of_a_day():
    ended = laconic("plan", "compskip", "--params", "10K", *SITES, "--latency", "1ms", "--lr", "0.5", "--compute", "1s")
    assert ended.code == 0, ended.err
    words = " ".join(ended.out.split())
    assert "4 workers, 10 Mbit/s up, 50 Mbit/s down" in words
    assert "sites of 2 + 2 joined by 1 Mbit/s, latency 20.0 ms" in words
    assert "compskip, rank0; learning rate 0.005" in words
    assert 'laconic.DistributedOptimizer(optimizer, laconic.CompSkip(), model=model, layout="rank0")' in ended.out
    assert "In a day of such steps" in words
    assert "between the sites" in words
    data = json.loads(laconic("plan", "sgd", "--params", "10K", *SITES, "--compute", "1s", "--json", "-").out)
    row = data["all_reduce"]
    # In each of six steps a quarter of 40 KB crosses the line each way.
    steps = 86_400 / row["step_s"]
    assert row["between_sites_bytes_per_day"] == pytest.approx(steps * 6 * 2 * 10_000)
    assert row["worker_bytes_per_day"] == pytest.approx(steps * 6 * 2 * 10_000)
    assert row["all_links_bytes_per_day"] == pytest.approx(4 * row["worker_bytes_per_day"])
    assert (data["sites"], data["between_sites_bytes_per_s"], data["down_bytes_per_s"]) == ([2, 2], 125e3, 6.25e6)


def test_the_sentence_says_clearly_that_the_all_reduce_wins():
    fast = ("--params", "1M", "--workers", "4", "--bandwidth", "100Gbit", "--latency", "10ms", "--no-measure")
    ended = laconic("plan", "ssgd-mv", "csgd-ring", *fast)
    assert ended.code == 0, ended.err
    assert "Plain all-reduce wins" in ended.out
    slow = laconic("plan", "ssgd-mv", "csgd-ring", *fast[:5], "10Mbit", *fast[6:])
    assert "Take ssgd-mv on allreduce" in " ".join(slow.out.split())
    assert "plain all-reduce wins over it" in " ".join(slow.out.split())


def test_figures_alone_can_be_printed():
    ended = laconic("plan", "sgd", *SMALL, "--json", "-")
    data = json.loads(ended.out)
    assert data["all_reduce"]["layout"] == "allreduce"


def test_settings_and_local_steps_reach_the_methods():
    ended = laconic("plan", "sparse", *SMALL, "--set", "sparse.density=0.1", "--local-steps", "2", "--json", "-")
    data = json.loads(ended.out)
    assert data["choices"][0]["settings"]["density"] == "0.1"
    assert data["choices"][0]["local_steps"] == 2
    assert data["all_reduce"]["local_steps"] == 1


def test_a_model_by_name_gives_its_own_layers():
    ended = laconic("plan", "sparse", "--model", "mlp", "--input-shape", "64", *LINK, "--json", "-")
    assert json.loads(ended.out)["parameters"] == 38_410


def test_a_measured_plan_says_so():
    ended = laconic("plan", "sgd", *SMALL[:-1])
    assert ended.code == 0, ended.err
    assert "a sample on one thread" in ended.out


@pytest.mark.slow
def test_a_recorded_run_is_timed_again(tmp_path):
    quick = ("--epochs", "1", "--batch-size", "90", "--model", "linear")
    assert laconic("compare", "sgd", "signsgd-mv", *quick, "--out", str(tmp_path)).code == 0
    ended = laconic("plan", "--trace", str(tmp_path), "--bandwidth", "1Mbit", "--no-measure", "--json", "-")
    assert ended.code == 0, ended.err
    data = json.loads(ended.out)
    assert data["parameters"] == 650
    assert {(row["method"], row["layout"]) for row in data["choices"]} == {("signsgd-mv", "sharded")}
    wrong = laconic("plan", "--trace", str(tmp_path), "--bandwidth", "1Mbit", "--workers", "3")
    assert wrong.code == 2
    assert "--workers: the recorded run" in wrong.err


def instead(option, value):
    """The options of a small plan with another value of one of them."""
    return tuple(value if before == option else word for before, word in zip(("", *SMALL), SMALL, strict=False))


MISTAKES = {
    "no bandwidth": (("sgd", "--params", "1M", "--workers", "4"), ("--bandwidth is missing", "1Gbit")),
    "a bandwidth of nothing": (instead("--bandwidth", "0Mbit"), ("--bandwidth", "0Mbit", "above 0")),
    "a bandwidth without a unit": (instead("--bandwidth", "10"), ("--bandwidth", "'10'", "100Mbit")),
    "a negative latency": (instead("--latency", "-1ms"), ("--latency", "-1ms", "above 0")),
    "a negative compute time": ((*SMALL, "--compute", "-1s"), ("--compute", "-1s", "above 0")),
    "one direction": (
        ("--params", "1K", "--workers", "4", "--up", "1Mbit"), ("--up needs --down BANDWIDTH", "--bandwidth"),
    ),
    "directions and both at once": ((*SMALL, "--up", "1Mbit", "--down", "2Mbit"), ("give --bandwidth, or --up",)),
    "a download that is none": (("--params", "1K", "--up", "1Mbit", "--down", "fast"), ("--down", "'fast'", "100Mbit")),
    "sites without a line": ((*SMALL, "--sites", "2+2"), ("--sites needs --between", "50Mbit,20ms")),
    "a line without sites": ((*SMALL, "--between", "1Mbit,1ms"), ("--between needs --sites", "4+4")),
    "one site": ((*SMALL, "--sites", "4", "--between", "1Mbit,1ms"), ("--sites '4'", "such as 4+4")),
    "a line without latency": ((*SMALL, "--sites", "2+2", "--between", "1Mbit"), ("--between", "50Mbit,20ms")),
    "sites of other workers": (
        (*SMALL, "--sites", "2+3", "--between", "1Mbit,1ms"), ("--sites 2+3 has 5 workers", "--workers 4"),
    ),
    "a measurement of one process": (("--measure", "--params", "1K"), ("--measure", "torchrun --nproc-per-node")),
    "a measurement of what is given": ((*SMALL, "--measure"), ("--bandwidth", "--measure finds the network")),
    "a measurement of a recorded run": (("--measure", "--trace", "folder"), ("--measure and --trace folder",)),
    "a rate of nothing": ((*SMALL, "--lr", "0"), ("--lr 0", "above 0")),
    "an overhead below nothing": ((*SMALL, "--overhead", "-1ms"), ("--overhead", "-1ms")),
    "no size": (LINK, ("--params COUNT", "--model NAME")),
    "two sizes": ((*SMALL, "--model", "mlp"), ("--params COUNT", "not both")),
    "a size that is none": ((*LINK, "--params", "many"), ("--params 'many'", "25.6M")),
    "half a parameter": ((*LINK, "--params", "1.5"), ("--params '1.5'", "whole number")),
    "a model without a shape": ((*LINK, "--model", "mlp"), ("--input-shape", "1x28x28")),
    "a shape that is none": ((*LINK, "--model", "mlp", "--input-shape", "1xx"), ("--input-shape '1xx'",)),
    "a shape without a model": ((*SMALL, "--input-shape", "8"), ("--input-shape is for --model",)),
    "an unknown model": ((*LINK, "--model", "mpl", "--input-shape", "8"), ("'mpl'", "did you mean mlp")),
    "no workers": (("--params", "1M", "--bandwidth", "1Mbit"), ("--workers is missing",)),
    "one worker": (instead("--workers", "1"), ("--workers 1", "2 .. 512")),
    "an unknown method": (("compskp", *SMALL), ("unknown algorithm 'compskp'", "did you mean compskip")),
    "a key of a method that is not planned": (("sgd", *SMALL, "--set", "csgd.c=1"), ("--set csgd", "sgd.KEY=VALUE")),
    "an unknown key": (("compskip", *SMALL, "--set", "compskip.keeep=1"), ("compskip: unknown key 'keeep'",)),
    "no local steps": ((*SMALL, "--local-steps", "0"), ("--local-steps 0", "at least 1")),
    "a folder without a run": (("--trace", "nowhere", "--bandwidth", "1Mbit"), ("--trace nowhere", "config.toml")),
    "a plot that is no picture": ((*SMALL, "--plot", "plan.jpg"), ("--plot plan.jpg", ".png, .svg, .pdf")),
    "a file in a folder that is not there": ((*SMALL, "--json", "/no/such/x.json"), ("--json /no/such/x.json",)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_one_line_that_names_it_and_the_remedy(mistake):
    arguments, expected = MISTAKES[mistake]
    ended = laconic("plan", *arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    for words in expected:
        assert words in " ".join(ended.err.split()), ended.err
