"""Published tables, small: every figure against its formula, and what is refused."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest

from laconic.compressors import n_selected_for
from laconic.errors import LaunchError
from laconic.lab.json_text import json_text
from laconic.lab.processes.pool import PoolTask, run_tasks
from laconic.lab.runs.settings import RunSettings
from laconic.report.published import result_of
from laconic.reproduce import TABLES, table_of
from laconic.reproduce.resnet18 import layer_sizes
from laconic.reproduce.sasg_memory import SasgMemory
from laconic.reproduce.sasg_mnist import SasgMnist, rounds_to_target
from laconic.reproduce.ssgdmv_bits import SsgdMvBits
from laconic.reproduce.table import Request
from support import pool_tasks

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share


def silent(done, total, note):
    assert 0 <= done <= total


def computed(table):
    """Every job's figures, worked out in this process."""
    return [task.work(silent, **task.arguments) for task in table.tasks(table.plan(Request()))]


def test_resnet18_has_the_papers_number_of_parameters_and_of_the_largest_of_each_layer():
    assert sum(layer_sizes()) == 11_173_962
    assert sum(layer_sizes(100)) == 11_220_132
    assert sum(max(1, size // 100) for size in layer_sizes()) == 111_723
    assert sum(max(1, size // 100) for size in layer_sizes(100)) == 112_184


# --- compression ratios -----------------------------------------------------------------------------

D = 100_000
BITS = SsgdMvBits(parameters=D)


@pytest.fixture(scope="module")
def bits():
    return {(one["method"], one["bits"]): one for one in computed(BITS)}


MASK = 1000 * (7 + 2)  # block code: a bit and 7 for the place in the block, and a bit for each of 1000 blocks
SWAPS = 2 * 100 * (10 + 2)
UP = {
    ("ssgd-mv", 32): MASK + 32 * 1000, ("ssgd-mv", 4): MASK + 4 * 1000, ("ssgd-mv-rs", 32): MASK + 32 * 1000,
    ("ssgd-mv-ad", 32): SWAPS + 32 * 1000, ("ssgd-mv-ad", 4): SWAPS + 4 * 1000, ("ssgd-topk", 32): MASK + 32 * 1000,
}  # fmt: skip


@pytest.mark.parametrize("kind", UP, ids=str)
def test_the_paper_meter_of_real_messages_is_the_papers_formula(bits, kind):
    assert bits[kind]["up"]["block"]["paper"] == UP[kind]
    if kind[0] != "ssgd-topk":
        assert bits[kind]["down"]["block"]["paper"] == MASK + 32 * 1000


@pytest.mark.parametrize("kind", [kind for kind in UP if kind[0] != "ssgd-mv-ad"], ids=str)
def test_the_payload_in_the_papers_code_is_its_paper_bits_and_the_quantizers_means(bits, kind):
    means = 32 * 8 if kind[1] == 4 else 0
    assert bits[kind]["up"]["block"]["payload"] == UP[kind] + means


def test_what_add_drop_drops_is_cheaper_than_in_print_since_it_is_a_place_in_the_list(bits):
    dropped = 100 * (1 + 4) + 100  # places among 1000, in blocks of 10
    added = SWAPS / 2
    assert bits["ssgd-mv-ad", 32]["up"]["block"]["payload"] == added + dropped + 32 * 1000


def test_the_union_that_top_k_sends_back_is_between_one_workers_list_and_all_of_them(bits):
    down = bits["ssgd-topk", 32]["down"]["block"]["paper"]
    expected = (1 - 0.99**10) * D  # entries; each has 32 bits, 4 in its block, and 2
    assert 0.97 * 38 * expected < down < 1.03 * 38 * expected < 38 * 10 * 1000


def test_the_table_of_ratios_has_the_printed_row_beside_what_was_measured(bits):
    comparison = BITS.compare(list(bits.values()))
    up, down = comparison.sheets
    rows = {row[0]: row[1:] for row in up.rows}
    assert len(rows) == len(down.rows) == 14
    assert rows["MV-L8"][:4] == ("624", "624.4", "624.4", "624.4")
    assert rows["AD-L8-Q"][:3] == ("4000", "4000.0", "4000.0")
    assert {name for name, row in rows.items() if row[0].endswith("*")} == {"MV-L8-Q", "AD-L8"}
    assert {row[0]: row[1:3] for row in down.rows}["top-K"] == ("8.4", "8.42")


# --- server memory ----------------------------------------------------------------------------------

LAYERS = (3000, 250, 70)


def test_the_server_stores_full_vectors_for_lasg_and_values_with_positions_for_sasg():
    table = SasgMemory(layers=LAYERS, workers=4)
    lasg, sasg = computed(table)
    assert lasg["formula_bytes"] == lasg["value_bytes"] == 4 * 4 * sum(LAYERS)
    assert lasg["position_bytes"] == 0
    n_selected = sum(max(1, n_selected_for(0.01, size)) for size in LAYERS)
    assert sasg["formula_bytes"] == sasg["value_bytes"] == sasg["position_bytes"] == 4 * 4 * n_selected
    assert sasg["value_bytes"] + sasg["position_bytes"] <= sasg["held_bytes"] < 2 * 8 * 4 * n_selected
    (sheet,) = table.compare([lasg, sasg]).sheets
    assert [row[:2] for row in sheet.rows] == [("lasg", "426.25"), ("sasg", "4.26")]


def test_the_printed_memory_is_four_bytes_for_each_of_ten_workers_values():
    n_selected = sum(max(1, size // 100) for size in layer_sizes())
    assert round(Fraction(40 * sum(layer_sizes()), 2**20), 2) == Fraction("426.25")
    assert round(Fraction(40 * n_selected, 2**20), 2) == Fraction("4.26")


# --- rounds to 98 % ---------------------------------------------------------------------------------


def run_of(method, *, uploads=10, seed=1, reached=True, diverged=None):
    """Figures as a job finds them."""
    each = 32 * (407_050 if method in ("sgd", "lasg") else 4071)
    return {
        "method": method, "seed": seed, "uploads": uploads, "iterations": 6000, "reached": reached,
        "best_accuracy": 0.979, "paper_bits": each * uploads, "payload_bits": 1.3 * each * uploads,
        "encoded_bytes": each * uploads // 6, "diverged": diverged,
    }  # fmt: skip


def test_rounds_and_bits_are_laid_beside_print_and_as_shares_of_sgd():
    table = SasgMnist()
    rounds, bits = table.compare([run_of("sgd", uploads=60_400), run_of("sasg", uploads=22_823)]).sheets
    assert rounds.rows[1] == ("sasg", "22,823", "21,624 .. 27,029", "22,823", "0.378", "0.378", "6,000")
    assert bits.rows[0][1:3] == ("7.87e+11", "7.87e+11")
    assert bits.rows[1][1:3] == ("2.97e+09", "2.97e+09")


def test_figures_of_several_seeds_are_means_and_a_run_that_did_not_get_there_is_marked():
    found = [run_of("sgd", uploads=60_000), run_of("sgd", uploads=120_000, seed=19, reached=False)]
    comparison = SasgMnist().compare(found)
    assert comparison.sheets[0].rows[0][3] == "> 90,000"
    assert "mean of 2 seeds" in comparison.notes[0]
    assert "98% was not reached in 20 epochs by sgd (seed 19, 97.90%)" in comparison.notes[-1]


def test_a_run_that_diverged_is_marked_in_both_sheets_and_named_with_the_reason():
    found = [run_of("sgd", uploads=60_000), run_of("sasg", reached=False, diverged="its loss is not finite")]
    comparison = SasgMnist().compare(found)
    assert [sheet.rows[1][0] for sheet in comparison.sheets] == ["sasg (diverged)"] * 2
    assert comparison.sheets[0].rows[0][0] == "sgd"
    assert comparison.diverged == ("sasg (seed 1): its loss is not finite",)
    assert SasgMnist().compare(found[:1]).diverged == ()


def test_a_task_says_whether_its_run_diverged():
    settings = RunSettings(algorithm="sgd", lr=1e30, epochs=1, workers=2, batch_size=140)  # 5 rounds
    figures = rounds_to_target(silent, settings, look_every=100, target=0.98)
    assert figures["diverged"]
    assert rounds_to_target(silent, replace(settings, lr=0.1), look_every=100, target=0.98)["diverged"] is None


def test_without_sgd_there_is_no_share_of_it():
    rounds, _ = SasgMnist().compare([run_of("lasg", uploads=30_000)]).sheets
    assert rounds.rows[0][5] == "-"


def test_methods_that_average_get_the_learning_rate_of_the_sum_times_ten():
    learning_rates = SasgMnist().settings()["lr"]
    assert learning_rates == {"sgd": 0.05, "sparse": 0.05, "lasg": 0.005, "sasg": 0.005}


# --- requests, jobs, files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "request_", "words"),
    [
        ("ssgdmv-table1-bits", Request(data="here"), "data='here': ssgdmv-table1-bits reads no data"),
        ("ssgdmv-table1-bits", Request(seeds=(1,)), "seeds: the figures of ssgdmv-table1-bits"),
        ("ssgdmv-table1-bits", Request(methods=("sgd",)), "methods: ssgdmv-table1-bits always computes all rows"),
        ("sasg-table2-mnist", Request(methods=("sagd",)), "did you mean"),
        ("sasg-table2-mnist", Request(methods=("sgd", "sgd")), "methods: sgd is given twice"),
        ("sasg-table2-mnist", Request(seeds=(-1,)), "seeds=-1 must be at least 0"),
    ],
)
def test_what_a_table_does_not_have_is_refused(name, request_, words):
    with pytest.raises(ValueError, match=words):
        table_of(name).plan(request_)


def test_rows_come_in_the_tables_order_and_all_of_them_unless_chosen():
    table = table_of("sasg-table2-mnist")
    assert table.plan(Request()).methods == ("sgd", "sparse", "lasg", "sasg")
    assert table.plan(Request(methods=("sasg", "sgd"))).methods == ("sgd", "sasg")
    assert table.plan(Request()).seeds == (1,)


@pytest.mark.parametrize("name", TABLES)
def test_settings_and_printed_figures_of_every_table_are_json(name):
    table = TABLES[name]
    assert table.name == name
    assert json.loads(json.dumps(table.printed))
    assert json.loads(json.dumps(table.settings()))


def test_a_result_file_says_what_was_run_with_what_and_every_figure(tmp_path):
    table = replace(SasgMemory(), layers=LAYERS)
    request = table.plan(Request(methods=("sasg",)))
    found = [task.work(silent, **task.arguments) for task in table.tasks(request)]
    path = tmp_path / "new" / "result.json"
    path.parent.mkdir()
    path.write_text(json_text(result_of(table, request, found, table.compare(found))))
    data = json.loads(path.read_text())
    assert data["found"] == found
    assert data["printed"] == {"lasg": {"mib": 426.25}, "sasg": {"mib": 4.26}}
    assert data["settings"]["layers"] == list(LAYERS)
    assert data["settings"]["methods"] == ["sasg"]
    assert data["tables"][0]["rows"][0][0] == "sasg"
    assert {"command", "date", "versions", "machine", "source"} <= set(data)


@pytest.mark.slow
def test_jobs_give_their_figures_in_order_and_say_where_they_are():
    seen_progress = []
    tasks = [PoolTask(label=f"job {n}", work=pool_tasks.doubled, arguments={"number": n}) for n in (1, 2)]
    assert run_tasks(tasks, 2, seen_progress.append) == [{"twice": 2}, {"twice": 4}]
    assert {(step.label, step.done) for step in seen_progress} == {
        ("job 1", 0),
        ("job 1", 1),
        ("job 2", 0),
        ("job 2", 1),
    }


@pytest.mark.slow
def test_a_job_that_fails_and_a_process_that_dies_are_named():
    with pytest.raises(LaunchError, match="first: ArithmeticError: nothing adds up"):
        run_tasks([PoolTask(label="first", work=pool_tasks.broken)], 1, print)
    with pytest.raises(LaunchError, match="second: its process ended with exit code 7"):
        run_tasks([PoolTask(label="second", work=pool_tasks.dying)], 1, print)
