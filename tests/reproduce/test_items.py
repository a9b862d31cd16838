"""Items of the papers: the files, what is judged of them, and runs that several share."""

import json
from dataclasses import replace

import pytest

from laconic.lab.runs.looks import LookPlan
from laconic.lab.runs.run import look_at_simulated
from laconic.report.items import cells_of, number_text, verdict_text
from laconic.report.items_page import ItemOnPage, page_of
from laconic.reproduce.computed import COMPUTED
from laconic.reproduce.grid import best_factors, tries_of
from laconic.reproduce.item_runs import (
    Choices,
    Folder,
    PlannedCell,
    check_choices,
    compute,
    found_in,
    options_of,
    planned_cells,
)
from laconic.reproduce.items import Item, Rule, in_full, item_of, items, setting_in_full, setting_of
from laconic.reproduce.judging import Found, lines_of, verdict_of
from laconic.reproduce.measures import FinishedRun, measured
from laconic.reproduce.rules import Verdict
from laconic.reproduce.time_spent import time_of
from support.inputs import over_inputs

HOLDS, BAND, NOT = Verdict


def silent(done, total, note):
    assert 0 <= done <= total


def looked_at(settings, every):
    return look_at_simulated(settings, LookPlan(every=every), lambda progress: None)


# --- the files --------------------------------------------------------------------------------------

PRINTED = {
    "000": ("Table 1", "Table 2", "Figure 1", "Figure 2", "Figure 3a", "Figure 3b", "cost section"),
    "001": ("Table I", "Table II, FC MNIST", "Table II, CIFAR-10", "Table II, CIFAR-100", "Table III", "Figure 1",
            "Figure 2a, 2d", "Figure 2b, 2e", "Figure 2c, 2f", "Figure 3a, 3b", "Figure 3c", "Figure 4", "Figure 5"),
    "002": ("Table 1, accuracy", "Table 1, budgets", "Figure 1", "Figure 2", "Figure 3", "Figure 4a", "Figure 4b"),
    "003": ("Table 1.1, GD", "Table 1.1, SGD", "Table 1.1, mb-SGD", "Table 1.1, CSGD", "Table 1.1, EC-SGD",
            "Table 1.1, ASGD", "Table 1.1, DSGD", "Table 1.1, communication", "Table 1.2", "Figures 1.1, 1.2, 1.5",
            "Example 1.3.1, Figure 1.3", "Example 1.3.2, Figure 1.4", "Example 1.3.3, Figure 1.7", "Example 1.3.4",
            "Figure 1.6", "Figure 2.3", "Figure 3.1", "Figure 3.3", "Figures 3.4, 3.5", "Figures 4.1, 4.2",
            "Figures 5.2, 5.3", "section 2.1.2", "chapter 3", "theorems 4.2.2"),
    "004": ("Table 1, costs", "Table 1, accuracy", "Table 2", "Figure 1", "Figure 2", "Figure 3", "Figure 4",
            "rescaling"),
}  # fmt: skip


def test_every_printed_table_and_figure_of_the_five_papers_has_an_item():
    missing = [
        (paper, printed)
        for paper, names in PRINTED.items()
        for printed in names
        if not any(item.paper == paper and printed in item.prints for item in items().values())
    ]
    assert not missing


def test_every_item_says_what_is_scaled_and_names_what_is_there():
    for name, item in items().items():
        assert name.startswith(item.paper)
        assert item.scaled.endswith("."), name
        assert not item.compute or item.compute in COMPUTED, name
        for cell in planned_cells(item, Choices()):
            assert len(cell.key) > 12
        rows = {*item.rows, *item.own}
        for rule in item.rules:
            named = {*rule.of, *([rule.against] if rule.against else [])}
            assert not rule.measure or named <= rows, f"{name}: {named - rows}"
            assert rule.measure or item.compute, name


def test_all_runs_but_those_of_the_printed_settings_are_few_enough_for_four_hours():
    minutes_of = {item.setting or name: item.minutes for name, item in items().items()}
    assert sum(minutes_of.values()) < 240
    assert max(item.minutes for item in items().values()) <= 30


WRONG = {
    "an unknown key": ('kindd = "drawn"', "unknown key 'kindd'; did you mean kind?"),
    "an unknown kind": ('kind = "run"', "kind='run' must be one of computed, trained"),
    "no kind": ("", "kind is missing"),
    "a rule of an unknown kind": ('kind = "computed"\n[[rules]]\nkind = "equal"\nof = "x"', "a rule's kind='equal'"),
    "a rule with an unknown key": ('kind = "drawn"\n[[rules]]\nkind = "shown"\nfor = "x"', "a rule: unknown key 'for'"),
    "not here without a reason": ('kind = "not here"', "says why"),
}  # fmt: skip


@over_inputs("case", WRONG)
def test_a_file_that_is_no_item_is_refused_with_its_name(case, tmp_path):
    from laconic.reproduce import items as module

    text, words = WRONG[case]
    file = tmp_path / "wrong.toml"
    file.write_text(f'# Nothing.\npaper = "000"\nprints = "Table 9"\ntitle = "t"\n{text}\n')
    with pytest.raises(ValueError, match=r"wrong\.toml") as error:
        module._item(file, "wrong")
    assert words in str(error.value)


def test_an_unknown_item_is_refused_with_near_misses_of_full_tables_too():
    with pytest.raises(ValueError, match="did you mean 000-table2"):
        item_of("000-tabel2")
    with pytest.raises(ValueError, match="did you mean sasg-table3-memory"):
        item_of("sasg-table3-memori", ["sasg-table3-memory"])


def test_a_row_that_is_like_another_has_its_options_and_its_own():
    setting = setting_of("e")
    item = item_of("002-table1-accuracy")
    options = options_of(item, setting, "MV-L8-Q")
    assert options["local_steps"] == 8
    assert options["set"] == {"residual_at_decay": "0.1", "bits": "4"}
    assert options["algorithm"] == "ssgd-mv"
    assert options_of(item, setting, "single machine")["workers"] == 1
    assert options_of(item, setting_in_full(setting), "MV")["epochs"] == 300
    with pytest.raises(ValueError, match="unknown row 'MV-L9'; did you mean"):
        options_of(item, setting, "MV-L9")


# --- runs -------------------------------------------------------------------------------------------


def test_items_share_runs_of_equal_settings_and_seed_wherever_the_data_are():
    keys = {
        name: {(cell.row, cell.settings.seed): cell.key for cell in planned_cells(item_of(name), Choices(data=data))}
        for name, data in (("000-table1", {}), ("004-table1", {"fashion-mnist": "elsewhere"}))
    }
    for row in ("sgd", "signsgd-mv", "dist-ef", "dropsign"):
        assert keys["000-table1"][row, 0] == keys["004-table1"][row, 0]
    assert len(set(keys["000-table1"].values())) == 15
    one, other = (planned_cells(item_of("004-table2"), Choices(seeds=(seed,))) for seed in (0, 1))
    assert not {cell.key for cell in one} & {cell.key for cell in other}
    faults = {cell.key for cell in one if "invert" in cell.row}
    assert len(faults) == 6, "a fault plan is part of a run's key"


def test_the_printed_setting_has_its_own_data_and_rows_keep_what_it_does_not_change():
    choices = Choices(data={"imagenet": "images"}, full=True, seeds=(0,))
    cells = {cell.row: cell.settings for cell in planned_cells(in_full(item_of("000-fig2")), choices)}
    assert {one.data for one in cells.values()} == {"images"}
    assert {(one.model, one.batch_size, one.workers, one.epochs) for one in cells.values()} == {
        ("resnet50", 128, 7, 90)
    }
    assert [one.set["c"] for one in cells.values()] == ["1e-2", "2e-2", "4e-2"]
    item = item_of("004-table2")
    inverted = {cell.row: cell.settings for cell in planned_cells(item, choices)}["dropsign, 3 invert"]
    assert inverted.fault_plan is not None
    assert inverted.set["c"] == "6e-3"
    assert planned_cells(item, choices)[0].key != planned_cells(item, Choices(seeds=(0,)))[0].key
    fit = item_of("003-table1.1-gd")
    assert (fit.compute, in_full(fit).compute) == ("fit-gd", "fit-gd-in-full")


def test_an_item_without_its_data_or_its_printed_setting_is_refused():
    with pytest.raises(ValueError, match="needs the data set mnist; give its folder with data"):
        check_choices(item_of("001-fig4"), Choices())
    with pytest.raises(ValueError, match="004-table2-convex is not here in its printed setting: it is not in print"):
        check_choices(item_of("004-table2-convex"), Choices(data={"a9a": "."}, full=True))
    with pytest.raises(ValueError, match="000-table1 needs the data set imagenet"):
        check_choices(item_of("000-table1"), Choices(data={"fashion-mnist": "."}, full=True))
    check_choices(item_of("003-fig1.6"), Choices(full=True))


@pytest.fixture(scope="module")
def rescaled():
    """The cells of 004-rescaling, which has the digits."""
    return planned_cells(item_of("004-rescaling"), Choices())


@pytest.mark.slow
def test_positive_factors_change_no_bit_of_dropsign_and_the_folder_holds_what_is_finished(rescaled, tmp_path):
    item, folder = item_of("004-rescaling"), Folder(tmp_path)
    rescaled = [replace(cell, settings=replace(cell.settings, epochs=1)) for cell in rescaled]
    assert verdict_text(item, lines_of(item, found_in(folder, item, rescaled))) == "not run yet"
    for cell in rescaled:
        folder.keep_cell(cell, looked_at(cell.settings, cell.look_every))
    identical, loses = lines_of(item, found_in(Folder(tmp_path), item, rescaled))
    assert identical.verdict is HOLDS
    assert identical.figure is not None
    assert identical.figure.mean == 0
    assert loses.verdict is HOLDS
    assert folder.made_with().n_runs == 4
    folder.clear()
    assert folder.made_with().n_runs == 0


def test_a_run_is_looked_at_every_few_steps_and_at_its_end(rescaled):
    cell = rescaled[0]
    settings = replace(cell.settings, epochs=1)
    found = looked_at(settings, 20)
    looks = found["looks"]
    assert [look["step"] for look in looks] == [20, 40, 51]
    assert looks[-1]["uploads"] == looks[-1]["round"] * 7
    assert looks[-1]["paper_bits"] == 32 * 4810 * looks[-1]["uploads"]
    assert json.loads(json.dumps(found)) == found
    again = looked_at(settings, 51)
    assert again["parameters_hash"] == found["parameters_hash"]
    assert looked_at(replace(settings, seed=1), 51)["parameters_hash"] != found["parameters_hash"]


def test_a_search_has_three_tries_a_row_and_a_sweep_of_c_keeps_its_values():
    swept = item_of("000-fig2")
    tries = tries_of([swept, item_of("000-fig3a")], Choices())
    assert [(one.row, round(one.learning_rate, 6)) for one in tries] == [
        ("compskip", 0.001), ("compskip", 0.003), ("compskip", 0.009),
    ]  # fmt: skip
    assert {one.cell.settings.epochs for one in tries} == {2}
    assert [round(float(one.cell.settings.set["c"]), 4) for one in tries] == [0.0333, 0.1, 0.3]
    chosen = planned_cells(swept, Choices(seeds=(0,), factors={("a", "compskip"): 3.0}))
    assert [(cell.row, cell.settings.lr, float(cell.settings.set["c"])) for cell in chosen] == [
        ("compskip", pytest.approx(0.009), pytest.approx(0.3)), ("c 0.2", pytest.approx(0.009), 0.2),
        ("c 0.4", pytest.approx(0.009), 0.4),
    ]  # fmt: skip


def test_the_best_try_of_a_row_is_chosen_and_of_equal_ones_that_of_the_setting(tmp_path):
    tries, folder = tries_of([item_of("004-rescaling")], Choices()), Folder(tmp_path)
    accuracies = {("sgd", 1): 0.9, ("sgd", 3.0): 0.95, ("dropsign", 1): 0.9, ("dropsign", 3.0): 0.9}
    for one in tries:
        look = {"test_accuracy": accuracies.get((one.row, one.factor), 0.5), "gap": None}
        folder.keep_cell(one.cell, {"looks": [look]})
    assert best_factors(tries, folder) == {("digits", "sgd"): 3.0, ("digits", "dropsign"): 1.0}


# --- measures ---------------------------------------------------------------------------------------


def cell(row, seed, accuracies, uploads=None, seconds=None):
    uploads = uploads or [10 * (n + 1) for n in range(len(accuracies))]
    seconds = seconds or [float(n + 1) for n in range(len(accuracies))]
    looks = [
        {"step": n + 1, "epoch": n + 1, "test_accuracy": accuracy, "uploads": uploads[n],
         "paper_bits": 8.0 * uploads[n], "seconds": seconds[n]}
        for n, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    return FinishedRun(row=row, seed=seed, looks=looks, figures={"parameters_hash": seed})


CELLS = {
    "lazy": [cell("lazy", 1, [0.5, 0.8, 0.9], [4, 6, 8]), cell("lazy", 2, [0.5, 0.7, 0.8], [4, 6, 8])],
    "sgd": [cell("sgd", 1, [0.4, 0.6, 0.85], [5, 10, 15]), cell("sgd", 2, [0.5, 0.6, 0.79], [5, 10, 15])],
}  # fmt: skip
MEASURES = {
    "accuracy": {1: 90.0, 2: 80.0},
    "uploads": {1: 8, 2: 8},
    "uploads to: 0.8": {1: 6, 2: 8},
    "bits to: 0.7": {1: 48, 2: 48},
    "uploads to share: sgd, 0.9": {1: 6, 2: 8},  # 0.9 * (0.85 + 0.79) / 2 = 0.738
    "seconds to share: sgd, 1": {1: 3, 2: 3},  # 0.82, which the second does not reach
    "drop after: 0.34": {1: 40.0, 2: 30.0},
    "epoch from which above: sgd": {1: 0, 2: 1},
    "parameters": {1: 1, 2: 2},
    "spread with: sgd": {1: 5.0, 2: 1.0},
    "below the mean by more than: 1, sgd": {1: -6.0, 2: -2.0},
}  # fmt: skip


@over_inputs("measure", MEASURES)
def test_a_measure_is_read_off_the_looks_of_each_seed(measure):
    assert measured(measure, "lazy", CELLS).by_seed == pytest.approx(MEASURES[measure])


def test_accuracies_are_compared_where_both_have_sent_as_often():
    assert measured("accuracy at uploads of: lazy, 3", "sgd", CELLS).by_seed == {1: 40.0, 2: 50.0}
    assert measured("accuracy at uploads of: lazy, 3", "lazy", CELLS).by_seed == {1: 90.0, 2: 80.0}


def test_a_run_that_does_not_reach_the_target_counts_with_all_its_traffic_as_a_bound():
    missed = measured("uploads to: 0.85", "lazy", CELLS)
    assert (missed.by_seed, missed.is_bound) == ({1: 8, 2: 8}, True)
    assert not measured("uploads to: 0.8", "lazy", CELLS).is_bound


def test_seconds_are_compared_between_the_fifths_of_a_run():
    falling = {"a": [cell("a", 1, [0.5] * 10, seconds=[4, 8, 12, 16, 20, 24, 27, 30, 31, 32])]}
    assert measured("fall of seconds", "a", falling).by_seed == {1: 3.0}
    assert measured("change of seconds", "a", falling).by_seed == {1: 0.25}


def test_an_unknown_measure_is_refused_with_near_misses():
    with pytest.raises(ValueError, match="unknown measure 'acuracy'; did you mean accuracy"):
        measured("acuracy", "lazy", CELLS)


# --- lines ------------------------------------------------------------------------------------------


def item(*rules):
    return Item(
        paper="000", prints="Table 9", title="a title", kind="trained", name="000-x", scaled="All.", rules=rules
    )


def rule(kind, **settings):
    return Rule(kind=kind, of=("lazy",), **settings)


def test_each_kind_of_rule_makes_a_line_with_its_verdict():
    of = item(
        rule("order", against="sgd", measure="accuracy", band=1.0),
        rule("order", against="sgd", measure="uploads", fewer=True, every_seed=True),
        rule("no loss", against="sgd", measure="accuracy", margin=0.5),
        rule("interval", against="sgd", measure="uploads", ratio=True, low=0.4, high=0.5),
        rule("shown", measure="accuracy"),
    )
    lines = lines_of(of, Found(cells=CELLS))
    assert [line.verdict for line in lines] == [HOLDS, HOLDS, HOLDS, BAND, None]
    assert [line.rule for line in lines] == [
        "above 0, band 1", "above 0 in every seed", "at least -0.5", "0.4 to 0.5", "",
    ]  # fmt: skip
    assert verdict_of(lines) is BAND
    assert cells_of(lines[0]) == ("lazy - sgd: accuracy", "", "3", "1", "5", "above 0, band 1", "holds")
    assert lines[1].what == "sgd - lazy: uploads"
    assert lines[3].what == "lazy over sgd: uploads"


def test_computed_figures_are_judged_one_by_one_and_those_by_seed_as_an_exponent():
    of = item(
        Rule(kind="computed", of=("a", "b"), printed="1.5"),
        Rule(kind="exponent", of=("fit",), expected=2.0),
        Rule(kind="interval", of=("a",), printed="1.6", tolerance=0.1),
    )
    found = Found(computed={"a": 1.52, "b": 1.56, "fit": {"0": 1.9, "1": 1.7, "2": 1.75}})
    lines = lines_of(of, found)
    assert [line.verdict for line in lines] == [HOLDS, NOT, BAND, HOLDS]
    assert verdict_of(lines) is NOT
    assert cells_of(lines[2])[2:5] == ("1.7833", "1.7", "1.9")


def test_what_has_not_been_run_has_no_verdict():
    of = item(rule("shown", measure="accuracy"), rule("no loss", against="sgd", measure="accuracy", margin=1.0))
    lines = lines_of(of, Found(cells={"lazy": CELLS["lazy"]}))
    assert [line.figure is None for line in lines] == [False, True]
    assert verdict_of(lines) is None
    assert verdict_text(of, lines) == "not run yet"
    both = item(*of.rules, Rule(kind="computed", of=("a",), printed="2"))
    lines_of_both = lines_of(both, Found(cells={"lazy": CELLS["lazy"]}, computed={"a": 2.0}))
    assert verdict_text(both, lines_of_both) == "holds as far as it has run"
    assert cells_of(lines[1])[2] == "-"


def test_numbers_have_five_digits_and_integers_none_behind_the_point():
    assert [number_text(one) for one in (328.2174, 14.0, 7.8675e11, 0.0, 60400.0)] == [
        "328.22", "14", "7.8675e+11", "0", "60400",
    ]  # fmt: skip


# --- computed items and the page --------------------------------------------------------------------

QUICK = [name for name, one in items().items() if one.kind == "computed" and one.minutes == 0 and name != "000-cost"]


def test_every_computed_item_but_the_long_ones_holds_and_stands_on_the_page(tmp_path):
    folder = Folder(tmp_path)
    for name in dict.fromkeys(item_of(name).compute for name in QUICK):
        folder.keep_computed(name, compute(silent, name))
    found = [
        ItemOnPage(item=one, lines=lines_of(one, found_in(folder, one, [])), spent=time_of(folder, one, []))
        for one in items().values()
        if not one.setting
    ]
    verdicts = {one.item.name: verdict_text(one.item, one.lines) for one in found}
    assert {name: verdicts[name] for name in QUICK} == dict.fromkeys(QUICK, "holds")
    page = page_of(found, folder.made_with())
    assert all(f"### {one.item.name}: " in page for one in found)
    assert "| server, GB saved | 82 | - |" in page, "000-cost has not been run"
    assert "| GB, server 0.1, beta~ 0.3 | 328 | 328.22 |" in page
    assert "| 003-table1.1-sgd | Table 1.1, SGD | trained |  | not run yet |" in page
    assert "| 000-table2 | Table 2 | computed | < 0.1 | holds |" in page
    assert "not here" in verdicts["003-schematics"]
    assert str(tmp_path) not in page


def test_a_planned_cell_leaves_the_machine_out_of_what_determines_its_figures(rescaled):
    cell = rescaled[0]
    assert isinstance(cell, PlannedCell)
    assert not {"data", "threads", "timeout_s"} & cell.content.keys()
    assert replace(cell, settings=replace(cell.settings, threads=2)).key == cell.key
    assert replace(cell, look_every=7).key != cell.key
