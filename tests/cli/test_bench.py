"""`laconic bench`: rows, figures and refusals of each command, at small sizes. How fast anything is, no test says."""

import json
from importlib.util import find_spec

import pytest

from laconic.wire import POSITION_CODES
from support.command_line import laconic

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share


def ran(tmp_path_factory, *arguments):
    """The command's end and what it wrote."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    ended = laconic("bench", *arguments, "--json", str(file))
    assert ended.code == 0, ended.err
    return ended, json.loads(file.read_text())


def words_of(ended):
    return " ".join(ended.out.split())


def assert_is_complete(figures, bench, names):
    """Everything that every bench's file has."""
    assert figures["bench"] == bench
    assert figures["names"] == names
    assert {"python", "laconic", "torch", "numpy"} <= set(figures["versions"])
    assert figures["machine"]["cores"] >= 1
    assert len({tuple(row.get(name) for name in names) for row in figures["rows"]}) == len(figures["rows"])
    for row in figures["rows"]:
        lower, upper = row["quartiles"]
        assert lower <= row["median"] <= upper
        assert len(row["samples"]) >= 1


# kernels


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    arguments = ("--d", "5000", "--repeats", "3", "--density", "0.1", "--density", "0.01", "--no-retained")
    return ran(tmp_path_factory, "kernels", *arguments)


def test_the_table_has_every_kernel_in_copies(kernels):
    words = words_of(kernels[0])
    assert "5,000 float32, one thread, median of 3" in words
    for word in ("sign step", "sign + pack", "by numpy", "majority", "fractional", "top-k, 0.1 ", "top-k, 0.01"):
        assert word in words
    for code in POSITION_CODES:
        for what in ("encode 0.1", "decode 0.01"):
            assert f"{code} code, {what}" in words


def test_the_file_has_every_kernel_by_every_contender(kernels):
    _, figures = kernels
    assert_is_complete(figures, "kernels", ["kernel", "by"])
    assert figures["settings"] == {"d": 5000, "densities": [0.1, 0.01], "repeats": 3, "threads": 1}
    rows = {(row["kernel"], row["by"]): row for row in figures["rows"]}
    for (kernel, _), row in rows.items():
        assert row["unit"] == "copies"
        assert (kernel, "laconic") in rows
    ours = rows["sign step: mask, residual", "laconic"]
    assert ours["bar_copies"] == 2
    assert ours["better_torch"] == "torch"
    assert ours["times_faster"] == pytest.approx(rows["sign step: mask, residual", "torch"]["median"] / ours["median"])
    assert ours["small_call_s"] > 0
    assert rows["sign + pack", "laconic"]["times_bar"] is None  # it alone need not be five times faster than torch


@pytest.mark.slow
def test_torch_is_measured_with_both_heaps_and_the_better_is_named(tmp_path_factory):
    ended, figures = ran(
        tmp_path_factory, "kernels", "--d", "5000", "--repeats", "3", "--density", "0.1", "--only", "sign +"
    )
    assert "sign + pack" in words_of(ended)
    rows = {(row["kernel"], row["by"]): row for row in figures["rows"]}
    assert {by for _, by in rows} == {"laconic", "torch", "numpy", "torch, retained"}
    better = min(("torch", "torch, retained"), key=lambda by: rows["sign + pack", by]["median"])
    assert rows["sign + pack", "laconic"]["better_torch"] == better


# wire


@pytest.mark.slow
def test_packets_are_shown_beside_what_entropy_allows(tmp_path_factory):
    ended, figures = ran(tmp_path_factory, "wire", "--d", "20000", "--repeats", "1", "--density", "0.05")
    assert_is_complete(figures, "wire", ["packet", "what"])
    assert "20,000 float32" in words_of(ended)
    rows = {(row["packet"], row["what"]): row for row in figures["rows"]}
    packets = {packet for packet, _ in rows}
    assert {f"positions, {code}" for code in POSITION_CODES} | {"sign", "quantized, 4, entropy"} <= packets
    for packet in packets:
        assert packet in words_of(ended)
        assert {what for name, what in rows if name == packet} == {"compress", "encode", "decode", "decode, add"}
        over = rows[packet, "encode"]["over_min"]
        assert over is None or 1 <= over < 5
    assert rows["positions, list", "encode"]["bytes"] > rows["positions, entropy", "encode"]["bytes"]
    assert rows["quantized, 4, entropy", "encode"]["over_min"] < rows["quantized, 4 bits", "encode"]["over_min"]


# simulate


def test_rounds_stand_beside_the_bare_loop_and_messages_beside_seconds(tmp_path_factory):
    arguments = (
        "--algorithms",
        "sgd,compskip",
        "--workers",
        "2",
        "--batch-size",
        "10",
        "--ring",
        "8",
        "--repeats",
        "3",
        "--side-by-side",
        "2",
    )
    ended, figures = ran(tmp_path_factory, "simulate", *arguments)
    assert_is_complete(figures, "simulate", ["simulation", "workers", "batch"])
    words = words_of(ended)
    assert "2 workers, 407,050 parameters, 2 threads over a bare loop in one" in words
    assert "ring, first call" in words
    rows = {row["simulation"]: row for row in figures["rows"]}
    assert set(rows) == {"sgd", "compskip", "ring, first call", "ring, warm"}
    assert (rows["compskip"]["bar"], rows["sgd"]["bar"]) == (1.6, None)
    assert rows["ring, warm"]["messages"] == 2 * 7 * 8
    assert rows["sgd"]["rounds_per_s"] * rows["sgd"]["median"] == pytest.approx(rows["sgd"]["bare_rounds_per_s"])


# scale


@pytest.mark.slow
def test_exponents_are_fitted_and_what_is_too_large_is_named(tmp_path_factory):
    arguments = (
        "--algorithms", "sgd,dropsign", "--workers", "2", "--workers", "4", "--parameters", "1000",
        "--parameters", "4000", "--parameters", "10000000", "--memory", "100MB", "--repeats", "2",
    )  # fmt: skip
    ended, figures = ran(tmp_path_factory, "scale", *arguments)
    assert_is_complete(figures, "scale", ["method", "what", "workers", "parameters"])
    words = words_of(ended)
    assert "2 .. 4 workers, 1,000 .. 10,000,000 parameters" in words
    assert "left out: sgd, 4 workers, 10,000,000 parameters: about " in words
    assert len(figures["left_out"]) == 4
    for method in ("sgd", "dropsign"):
        mine = [row for row in figures["rows"] if row["method"] == method]
        assert [row["what"] for row in mine] == [*["round"] * 4, "exponent of N", "exponent of d"]
        assert {(row["workers"], row["parameters"]) for row in mine if row["what"] == "round"} == {
            (n, d) for n in (2, 4) for d in (1000, 4000)
        }


def test_what_would_take_too_long_is_left_out_and_named():
    sizes = ("--parameters", "1000", "--parameters", "100000000")
    ended = laconic(
        "bench", "scale", "--algorithms", "sgd", "--workers", "2", *sizes, "--seconds", "0.1", "--memory", "1TB"
    )
    assert ended.code == 0
    words = words_of(ended)
    assert "left out: sgd, 2 workers, 100,000,000 parameters: about " in words
    assert "sgd, exponent of N: fewer than two sizes were measured" in words


# step


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    arguments = ("--algorithms", "sgd,compskip,asgd", "--workers", "2", "--parameters", "5000", "--repeats", "3")
    return ran(tmp_path_factory, "step", *arguments, "--set", "compskip.keep=0.5")


@pytest.mark.slow
def test_every_contender_stands_in_the_table(step):
    ended, _ = step
    words = words_of(ended)
    assert "2 processes, 5,000 parameters, median of 3" in words
    for name in (
        "all-reduce",
        "gathered",
        "ddp",
        "ddp no_sync",
        "ddp - no_sync",
        "ddp-fp16 - no_sync",
        "ddp-powersgd - no_sync",
        *(["ddp-hivemind - no_sync"] if find_spec("hivemind") else []),
        "sgd",
        "compskip",
        "asgd",
    ):
        assert name in words


@pytest.mark.slow
def test_the_file_has_the_slowest_rank_of_every_turn_and_where_the_time_went(step):
    _, figures = step
    assert_is_complete(figures, "step", ["workers", "parameters", "step"])
    rows = {row["step"]: row for row in figures["rows"]}
    full, alone, difference = (rows[name]["seconds"] for name in ("ddp", "ddp no_sync", "ddp - no_sync"))
    assert difference == pytest.approx([one - other for one, other in zip(full, alone, strict=True)])
    compskip = rows["compskip"]
    assert compskip["layout"] == "allgather"
    assert len(compskip["samples"]) == 3
    assert set(compskip["phases"]) >= {"encode", "wait", "decode", "bytes_up", "bytes_down"}
    assert rows["sgd"]["bytes"] == 2 * 4 * 5000 / 2  # a ring of two: half of the vector goes each way, twice
    assert 0 < compskip["bytes"] < rows["asgd"]["bytes"]
    for name in ("sgd", "compskip", "asgd"):
        assert len(rows[name]["ddp_seconds"]) == len(rows[name]["seconds"])
        ratios = [ours / alone for ours, alone in zip(rows[name]["seconds"], rows[name]["floor_seconds"], strict=True)]
        assert rows[name]["times_floor"] == pytest.approx(sorted(ratios)[1])
    assert figures["settings"]["set"]["compskip"] == {"keep": "0.5"}


@pytest.mark.slow
def test_calls_of_a_step_are_counted_and_stay_few(tmp_path_factory):
    arguments = ("--calls", "--algorithms", "sgd,signsgd-mv,ec-sgd", "--workers", "2", "--parameters", "1000")
    ended, figures = ran(tmp_path_factory, "step", *arguments)
    assert "calls of one step: 2 processes, 1,000 parameters" in words_of(ended)
    rows = {row["step"]: row for row in figures["rows"]}
    beyond = {name: row["mean"] - rows["all-reduce"]["mean"] for name, row in rows.items()}
    assert {row["unit"] for row in rows.values()} == {"calls"}
    assert all(len(row["samples"]) == 2 for row in rows.values())
    assert 0 < beyond["sgd"] <= 70 < beyond["signsgd-mv"] <= 320
    assert beyond["ec-sgd"] <= 370


# compare


def figures_of(bench="wire", rows=(("sign", 10.0, 11.0),), **changed):
    """A bench's file, made by hand: rows of a name and two quartiles."""
    return {
        "bench": bench, "names": ["packet"], "settings": {"d": 10}, "versions": {"torch": "2"}, "machine": {"cores": 2},
        "rows": [
            {"packet": name, "unit": "copies", "median": (low + high) / 2, "quartiles": [low, high]}
            for name, low, high in rows
        ],
    } | changed  # fmt: skip


def compared(tmp_path, before, after):
    files = []
    for name, figures in (("a.json", before), ("b.json", after)):
        (tmp_path / name).write_text(figures if isinstance(figures, str) else json.dumps(figures))
        files.append(str(tmp_path / name))
    return laconic("bench", "compare", *files)


def test_a_verdict_stands_only_where_the_spreads_do_not_overlap(tmp_path):
    before = figures_of(rows=[("sign", 10, 12), ("natural", 10, 12), ("qsgd", 10, 12), ("dense", 1, 2)])
    after = figures_of(rows=[("sign", 4, 5), ("natural", 11.5, 20), ("qsgd", 13, 15), ("ternary", 1, 2)])
    ended = compared(tmp_path, before, after)
    assert ended.code == 0
    lines = {line.split()[0]: line.split() for line in ended.out.splitlines() if line.strip()}
    assert lines["sign"] == ["sign", "11", "4.5", "0.41", "faster"]
    assert lines["natural"] == ["natural", "11", "15.8", "1.43"]
    assert lines["qsgd"] == ["qsgd", "11", "14", "1.27", "slower"]
    assert f"only in {tmp_path}/a.json: dense" in ended.out
    assert f"only in {tmp_path}/b.json: ternary" in ended.out


def test_what_else_is_not_the_same_is_named(tmp_path):
    ended = compared(tmp_path, figures_of(), figures_of(settings={"d": 20}, versions={"torch": "3"}))
    assert "not the same: settings d: 10 and 20; versions torch: 2 and 3" in ended.out


def test_a_bench_compares_with_itself_without_a_verdict(tmp_path, kernels):
    _, figures = kernels
    ended = compared(tmp_path, figures, figures)
    assert ended.code == 0
    assert "1.00" in ended.out
    assert "faster" not in ended.out
    assert "slower" not in ended.out
    assert "not the same" not in ended.out


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (figures_of(bench="kernels"), "a.json is of `bench wire` and"),
        ("{}", "b.json is not a bench's result; give a file that `laconic bench ... --json` wrote"),
        ("nothing", "b.json is not JSON"),
    ],
)
def test_files_that_do_not_compare_are_refused(tmp_path, after, message):
    ended = compared(tmp_path, figures_of(), after)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


# refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kernels", "--d", "1"), "--d 1 must be in 2 .. 4294967296"),
        (("kernels", "--repeats", "0"), "--repeats 0 must be at least 1"),
        (("kernels", "--density", "0"), "--density 0 must be in (0, 1]"),
        (("kernels", "--density", "nan"), "--density nan must be in (0, 1]"),
        (("kernels", "--density", "1.5"), "--density 1.5 must be in (0, 1]"),
        (("kernels", "--d", "50", "--density", "0.01", "--no-retained"), "density=0.01 of d=50 is no element"),
        (("kernels", "--only", "nothing"), "--only 'nothing' is in no kernel's name: sign step"),
        (("kernels", "--json", "/dev/null/x.json"), "--json /dev/null/x.json cannot be written"),
        (("step", "--workers", "1"), "--workers 1 must be in 2 .. 64"),
        (("step", "--momentum", "1"), "--momentum 1 must be in [0, 1)"),
        (("step", "--parameters", "1"), "--parameters 1 must be in 2 .. 4294967296"),
        (("step", "--algorithms", "compskp"), "--algorithms 'compskp' must be one of"),
        (("step", "--algorithms", "sgd", "--set", "dropsign.c=1"), "--set dropsign: not among the algorithms"),
        (("step", "--algorithms", "ssgd-mv", "--parameters", "50"), "density=0.01 of d=50 is no element"),
        (("wire", "--density", "2"), "--density 2 must be in (0, 1]"),
        (("wire", "--d", "50"), "density=0.01 of d=50 is no element"),
        (("simulate", "--workers", "1"), "--workers 1 must be in 2 .. 4096"),
        (("simulate", "--batch-size", "0"), "--batch-size 0 must be in 1 .. 1000000"),
        (("simulate", "--algorithms", "dsgd", "--side-by-side", "2"), "--side-by-side 2: the workers of dsgd have"),
        (("simulate", "--ring", "5000"), "--ring 5000 must be in 2 .. 2048"),
        (("scale", "--workers", "0"), "--workers 0 must be in 1 .. 4096"),
        (("scale", "--seconds", "0"), "--seconds 0 must be above 0"),
        (("scale", "--memory", "much"), "size 'much' must be a number and a unit"),
    ],
)
def test_a_wrong_argument_is_named_with_its_bound(arguments, message):
    ended = laconic("bench", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err
