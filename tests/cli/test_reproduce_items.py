"""`laconic reproduce ITEM` as a user meets it: verdicts, what is kept, the page, mistakes."""

import json

import pytest

from laconic.reproduce import item_runs
from laconic.reproduce.items import items
from support.command_line import laconic
from support.inputs import over_inputs

pytestmark = pytest.mark.slow


def test_an_item_is_computed_and_judged_once_and_stands_on_the_page(tmp_path, monkeypatch):
    out, page = tmp_path / "r", tmp_path / "page.md"
    arguments = ("reproduce", "003-example1.3.2", "003-fig2.3", "--out", str(out))
    ended = laconic(*arguments, "--json", "-")
    assert ended.code == 0, ended.err
    example, figure = json.loads(ended.out)["items"]
    assert (example["verdict"], figure["verdict"]) == ("holds", "drawn")
    assert example["lines"][0]["measured"]["mean"] == 9
    assert json.loads((out / "computed" / "example-1.3.2" / "summary.json").read_text())["values"]["units"] == 9
    monkeypatch.setattr(item_runs, "COMPUTED", {})  # what is finished is not computed again
    again = laconic(*arguments, "--page", str(page))
    assert again.code == 0, again.err
    assert "equal, digits cut off" in again.out
    text = page.read_text()
    assert "| speed-up | 1.55 | 1.5556 |  |  | equal, digits cut off | holds |" in text
    assert "### 000-table1: Table 1" in text
    assert str(tmp_path) not in text
    listed = laconic("reproduce", "--list", "--out", str(out), "--json", "-")
    verdicts = {item["name"]: item["verdict"] for item in json.loads(listed.out)["items"]}
    assert verdicts["003-example1.3.2"] == "holds"
    assert verdicts["000-table1"] == "not run yet"
    assert verdicts["001-fig1"] == "drawn"
    assert verdicts["001-fig2cf"] == "not here"
    assert verdicts.keys() == items().keys()


def test_overwrite_begins_anew_and_an_item_that_does_not_hold_is_a_result(tmp_path, monkeypatch):
    out = tmp_path / "r"
    arguments = ("reproduce", "003-example1.3.1", "--out", str(out))
    assert laconic(*arguments).code == 0
    file = out / "computed" / "example-1.3.1" / "summary.json"
    data = json.loads(file.read_text())
    data["values"]["third message to M1"] = 15.0
    file.write_text(json.dumps(data))
    ended = laconic(*arguments)
    assert ended.code == 0
    assert "does not hold" in ended.out
    ended = laconic(*arguments, "--overwrite")
    assert "does not hold" not in ended.out


def test_all_leaves_out_what_cannot_be_run_here_and_says_why(monkeypatch):
    chosen = {name: items()[name] for name in ("001-fig2cf", "001-fig4", "003-fig1.6")}
    monkeypatch.setattr("laconic.reproduce.items.items", lambda: chosen)
    ended = laconic("reproduce", "--all")
    assert ended.code == 0, ended.err
    text = " ".join(ended.out.split())
    assert "not run: --data: 001-fig4 needs the data set mnist; give its folder with --data mnist=FOLDER" in text
    assert "001-fig2cf not here" in text
    assert "003-fig1.6 computed < 0.1 holds" in text


def test_pictures_of_finished_items_stand_beside_the_runs_and_beside_the_page(tmp_path):
    out, page = tmp_path / "r", tmp_path / "page.md"
    item, folder = items()["003-table1.1-gd"], item_runs.Folder(out)
    points = {f"eps, T = {steps}": dict.fromkeys((0, 1, 2), 1 / steps) for steps in (256, 1024)}
    folder.keep_computed(item.compute, {"values": {"exponent": {0: 1.0, 1: 1.0, 2: 1.0}, **points}, "seconds": 1.0})
    ended = laconic("reproduce", item.name, "003-fig1.6", "004-fig1", "--out", str(out))
    assert ended.code == 0, ended.err
    assert "M3, 0.25 of the bandwidth send" in ended.out
    picture = out / "pictures" / f"{item.name}.svg"
    assert f"wrote {picture}" in ended.out.replace("\n", "")
    assert sorted(path.stem for path in picture.parent.iterdir()) == [item.name, "004-fig1"]
    assert laconic("reproduce", "--out", str(out), "--page", str(page)).code == 0
    assert all(f"](page/{name}.svg)" in page.read_text() for name in (item.name, "004-fig1"))
    assert (tmp_path / "page" / picture.name).read_bytes() == picture.read_bytes()
    assert laconic("reproduce", "003-fig1.6", "--out", str(out), "--overwrite").code == 0
    assert not picture.exists(), "what it shows has been removed"


MISTAKES = {
    "an item without its data": (("001-fig4",), "001-fig4 needs the data set mnist"),
    "data without a name": (("001-fig4", "--data", "here"), "NAME=PATH"),
    "a folder without the files": (("001-fig4", "--data", "mnist=/nowhere"), "'/nowhere' is not a folder"),
    "an unknown item": (("001-fig44",), "did you mean 001-fig4"),
    "rows of an item": (("001-fig4", "--methods", "sgd"), "is for a full table"),
    "an item and a full table": (("001-fig4", "sasg-table3-memory"), "is run by itself"),
    "all and a name": (("--all", "001-fig4"), "leave 001-fig4 out"),
    "a page of nothing": (("--page", "page.md"), "needs --out"),
    "the printed setting of what has none": (("004-table2-convex", "--full"), "setting: it is not in print"),
    "the printed setting without its data": (("000-fig2", "--full"), "--data imagenet=FOLDER"),
    "the printed setting of a full table": (("sasg-table3-memory", "--full"), "is for items"),
    "seeds that are no numbers": (("003-fig1.6", "--seeds", "a"), "whole numbers"),
}  # fmt: skip


@over_inputs("mistake", MISTAKES)
def test_a_mistake_ends_with_one_line_before_anything_is_run(mistake):
    arguments, words = MISTAKES[mistake]
    ended = laconic("reproduce", *arguments)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert words in ended.err, ended.err


def test_a_run_that_fails_does_not_end_the_others_and_is_named(tmp_path, monkeypatch):
    out = tmp_path / "r"
    monkeypatch.setattr(item_runs, "work_of_computed", one_that_fails())
    ended = laconic("reproduce", "003-fig1.6", "003-example1.3.1", "--jobs", "1", "--out", str(out))
    assert ended.code == 2
    assert "ArithmeticError: nothing adds up" in ended.err
    assert "not run yet" in ended.out
    assert (out / "computed" / "example-1.3.1" / "summary.json").is_file()


def one_that_fails():
    """What makes the work of computed figures, of which one fails."""
    from laconic.lab.comparison.cell_runs import CellWork
    from support import pool_tasks

    usual = item_runs.work_of_computed

    def work(name):
        return CellWork(names=(name,), kind=name, work=pool_tasks.broken) if name == "single-server" else usual(name)

    return work
