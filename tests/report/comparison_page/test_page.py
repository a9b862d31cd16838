"""The page of a comparison without a browser: what is in it, what it refers to, and names that stay text."""

import csv
import json
import math
import re
import shutil

import pytest

from laconic.errors import OptionError
from laconic.report.comparison_page.contents import contents_of
from laconic.report.comparison_page.files import write_report
from laconic.report.comparison_page.folder import read_comparison
from laconic.report.comparison_page.page import page_of
from laconic.report.visible import visible
from laconic.units import bytes_text
from support.comparison_folder import write_comparison
from support.html_elements import Elements
from support.inputs import over_inputs
from support.page_scripts import needs_node, run_by_node

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_comparison(tmp_path_factory.mktemp("comparison"))


@pytest.fixture(scope="module")
def contents(folder):
    return contents_of(read_comparison(folder))


@pytest.fixture(scope="module")
def page(contents):
    return page_of(contents)


def changed(folder, tmp_path, change):
    """A copy of the comparison whose `comparison.json` was changed."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    data = json.loads((copy / "comparison.json").read_text())
    change(data)
    (copy / "comparison.json").write_text(json.dumps(data))
    return copy


def without_plotly(page):
    """The page without the library's script, which holds addresses and marks of its own."""
    scripts = list(re.finditer(r"<script>.*?</script>", page, re.S))
    largest = max(scripts, key=lambda script: len(script[0]))
    assert "plotly.js v" in largest[0][:200]
    return page[: largest.start()] + page[largest.end() :]


def test_all_files_are_written_and_say_the_same(folder, tmp_path):
    written = write_report(folder, tmp_path / "new")
    assert [path.name for path in written] == ["report.html", "table.csv", "report.json", "curves.png", "curves.svg"]
    assert (tmp_path / "new" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    with (tmp_path / "new" / "table.csv").open(newline="") as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    figures = json.loads((tmp_path / "new" / "report.json").read_text())
    assert list(rows) == ["sgd", "votes, 10 %", "compskip", "asgd"]
    for result, series in zip(figures["results"], figures["series"], strict=True):
        row = rows[result["method"]]
        ends = [run["marks"]["metric"][-1] for run in series["runs"] if run["marks"]["round"]]
        assert float(row["metric_at_end_mean"]) == result["metric_at_end_mean"] == pytest.approx(sum(ends) / len(ends))
        up = [run["marks"]["up"][-1] for run in series["runs"] if run["marks"]["round"]]
        assert float(row["up_bytes_of_run_mean"]) == pytest.approx(sum(up) / len(up))


def test_the_same_runs_give_the_same_page(folder, page):
    assert page_of(contents_of(read_comparison(folder))) == page


def test_the_page_refers_to_nothing_outside_and_forbids_itself_to(page):
    text = without_plotly(page[0])
    assert not re.search(r"https?:|\ssrc=|href=|@import|url\((?!#)", text)
    assert not re.search("@[A-Z_]+@", text)
    assert "default-src 'none'" in text


def test_runs_that_failed_or_did_not_run_are_named_beside_those_that_are_well(page):
    assert "sgd, seed 8: failed: RuntimeError: no memory is left" in page[0]
    assert "sgd, seed 9: not run" in page[0]
    assert page[1]["series"][0]["state"] == "1 failed, 1 not run"
    assert page[1]["series"][1]["state"] == ""


def test_a_folder_of_runs_without_a_comparison_is_read_too(folder, contents, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(folder / "cells", runs)
    found = contents_of(read_comparison(runs))
    assert [one.label for one in found.series] == ["asgd", "compskip", "sgd", "ssgd-mv"]
    by_label = {one.label: one for one in contents.series}
    for one in found.series:
        other = by_label["votes, 10 %" if one.label == "ssgd-mv" else one.label]
        assert [run.marks for run in one.runs] == [run.marks for run in other.shown]
    shutil.copytree(folder / "cells" / "sgd", runs / "again")
    again = runs / "again" / "-" / "iid" / "seed-0" / "config.toml"
    again.write_text(again.read_text().replace("batch_size = 60", "batch_size = 30"))
    labels = [one.label for one in contents_of(read_comparison(runs)).series]
    assert labels == [
        "again/-/iid/seed-0",
        "again/-/iid/seed-1",
        "asgd",
        "compskip",
        "ssgd-mv",
    ]  # settings of their own


def test_the_table_and_the_fields_work_before_a_browser_has_read_the_library(page):
    text = page[0]
    assert text.index("function update()") < text.index("plotly.js v") < text.index("<script>drawCharts();</script>")


def test_networks_of_the_comparison_are_offered_and_it_starts_with_the_one_on_top(page):
    names = [network["name"] for network in page[1]["networks"]]
    assert names == ["home", "100 Mbit/s, 10 ms"]
    assert page[1]["start"] == {"up": "10Mbit", "down": "", "latency": "20ms", "compute": "30ms"}


def test_one_damaged_run_costs_its_own_line_only(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    runs = copy / "cells" / "sgd" / "-" / "iid"
    (runs / "seed-0" / "rounds.csv").write_text("round,epoch\r\n0,x\r\n")
    (runs / "seed-1" / "summary.json").write_text("[" * 100_000)
    contents = contents_of(read_comparison(copy))
    broken, unfinished, *_ = contents.series[0].runs
    assert "rounds.csv: column epoch has a cell that is no number" in broken.fault
    assert unfinished.marks.round
    assert unfinished.timing is None
    assert [len(one.shown) for one in contents.series] == [1, 2, 2, 2]
    assert "rounds.csv: column epoch" in page_of(contents)[0]


@over_inputs(("change", "why"), [
    (lambda data: data["cells"][0].update(seed=1e999), "cannot convert float infinity to integer"),
    (lambda data: data["cells"][0].update(seconds="soon"), "could not convert string to float"),
    (lambda data: data["cells"][0].update(folder="a\0b"), "embedded null byte"),
    (lambda data: data.update(cells={}), "is not what"), (lambda data: data.update(cells="x"), "is not what"),
    (lambda data: data.update(version=9), "version 9"),
])  # fmt: skip
def test_a_comparison_that_is_not_one_is_refused_by_the_name_of_its_file(change, why, folder, tmp_path_factory):
    copy = changed(folder, tmp_path_factory.mktemp("strange"), change)
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        read_comparison(copy)
    assert str(caught.value).startswith(f"{copy / 'comparison.json'}: is not what `laconic compare` writes (")


@over_inputs("target", [math.nan, math.inf, 10**400, [1], "0.9"])
def test_a_target_that_is_no_number_is_none(target, folder, tmp_path_factory):
    copy = changed(folder, tmp_path_factory.mktemp("target"), lambda data: data.update(target=target))
    assert read_comparison(copy).target is None


def test_figures_that_no_run_has_cost_that_run_its_line_and_a_label_is_shortened(folder, tmp_path):
    copy = changed(folder, tmp_path, lambda data: data["cells"][0].update(label="x" * 100_000))
    run = copy / "cells" / "sgd" / "-" / "iid" / "seed-0"
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("workers = 4", "workers = 10000000000"))
    contents = contents_of(read_comparison(copy))
    assert max(map(len, contents.names)) < 300
    assert "workers" in contents.runs[0].fault


@over_inputs("name", ["rounds.csv", "metrics.csv"])
def test_a_run_whose_file_was_truncated_is_named_and_is_in_no_mean(name, folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("truncated") / "copy"
    shutil.copytree(folder, copy)
    path = copy / "cells" / "sgd" / "-" / "iid" / "seed-0" / name
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    contents = contents_of(read_comparison(copy))
    assert f"{name}: ends at round" in contents.series[0].runs[0].fault
    assert len(contents.series[0].shown) == 1


HOSTILE = [
    "</script><b>@DATA@", "<!--<script>", '" onload="alert(1)', "' autofocus onfocus='x", "&lt;b&gt;", "$x_{$",
    "\\1 \\g<0>", "a\x1b[2J", "\u202egnp.exe", "two\nlines", "]]>", "_hidden", "__proto__", "\udcff",
]  # fmt: skip


def test_no_name_from_the_folder_is_more_than_text(folder, tmp_path):
    def with_name(name):
        def change(data):
            for cell in data["cells"]:
                if cell["algorithm"] == "sgd":
                    cell["label"] = cell["why"] = name
            data |= {"command": name, "networks": {name: data["networks"]["home"]}, "versions": {name: name}}
            data["task"] = {"dataset": name}

        copy = changed(folder, tmp_path / str(abs(hash(name))), change)
        text, data = page_of(contents_of(read_comparison(copy)))
        return without_plotly(text), data

    page, _ = with_name("named")
    expected = Elements(page)
    wrong = []
    for name in HOSTILE:
        text, data = with_name(name)
        found = Elements(text)
        if (found.tags, found.attributes) != (expected.tags, expected.attributes):
            wrong.append(f"{name!r} adds elements or attributes")
        if sum(visible(name) in text for text in found.texts) < 5 and "\n" not in name:
            wrong.append(f"{name!r} is not shown")
        embedded = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
        if embedded["series"][0]["name"] != data["series"][0]["name"]:
            wrong.append(f"{name!r} is another name in the data")
        if not all(line.isprintable() for line in text.replace("\udcff", "").split("\n")):
            wrong.append(f"{name!r} is not all printable")
    assert not wrong


def test_a_cell_that_leads_out_of_the_folder_is_refused(folder, tmp_path):
    for number, where in enumerate(("../../etc", "/etc", "cells/../..")):
        copy = changed(folder, tmp_path / str(number), lambda data, where=where: data["cells"][0].update(folder=where))
        with pytest.raises(ValueError, match=r"comparison\.json: is not what .*leads out of the folder"):
            read_comparison(copy)


def test_what_is_no_comparison_is_refused_in_one_line(folder, tmp_path):
    with pytest.raises(OptionError, match="has no run; give a folder"):
        read_comparison(tmp_path)
    with pytest.raises(OptionError, match="is no folder"):
        read_comparison(tmp_path / "none")
    for number, text in enumerate(("[]", "{", '{"version": 2, "cells": []}', '{"version": 1, "cells": [3]}')):
        copy = tmp_path / str(number)
        copy.mkdir()
        (copy / "comparison.json").write_text(text)
        with pytest.raises(ValueError, match=r"comparison\.json: is not what `laconic compare` writes"):
            read_comparison(copy)


@needs_node
def test_the_page_s_table_at_the_target_it_starts_with_is_the_one_in_the_file(contents, page):
    found = run_by_node(
        """given.series.map(series => Figures.result(series, given.metric, given.target, "",
        {up: 1e6, down: 1e6, latency: 0, compute: null}))""",
        page[1],
    )
    for mine, result in zip(found, contents.results, strict=True):
        assert mine["reached"] == result.reached
        for name in ("final", "rounds", "up", "total"):
            of = getattr(result, name)
            both = [None, None] if of is None else [mine[name]["mean"], mine[name]["deviation"]]
            assert both == ([None, None] if of is None else pytest.approx([of.mean, of.deviation]))


@needs_node
def test_seconds_of_a_curve_are_rounds_times_what_plan_says_where_all_rounds_are_alike(page):
    networks = [{"up": 1e5, "down": 1e5, "latency": 0.01}, {"up": 1e6, "down": 3e5, "latency": 0.0}]
    found = run_by_node(
        """given.series.map(series => given.networks.map(network => [
        Figures.seconds(series, series.runs[0], "", network), Figures.planned(series, series.runs[0], "", network),
        series.runs[0].marks.round]))""",
        {**page[1], "networks": [network | {"compute": 0.002} for network in networks]},
    )
    for series, of_networks in zip(page[1]["series"], found, strict=True):
        for seconds, planned, rounds in of_networks:
            assert seconds == sorted(seconds)
            within = 0.01 if series["algorithm"] in ("sgd", "asgd") else 0.05  # the others' rounds differ
            assert seconds[-1] == pytest.approx(rounds[-1] * planned, rel=within), series["name"]


@needs_node
def test_texts_of_units_are_read_as_the_command_line_reads_them():
    from laconic.units import bandwidth, bytes_text, duration, seconds_text

    bandwidths, durations = ["100Mbit", "1.5 Gbit/s", "12MB/s", "56kb", ".5Mbps"], ["10ms", "250us", "1.5 s", "2min"]
    values = [0.00012, 0.0123, 5.0, 59.97, 3599.0, 7.2e4]
    sizes = [0, 12, 999, 999_999, 1.234e9]
    found = run_by_node(
        "[given[0].map(Figures.bandwidth), given[1].map(Figures.duration), given[2].map(Figures.secondsText), "
        "given[3].map(Figures.bytesText), ['', '-1Mbit', '1', 'Mbit', '0Mbit', '<b>'].map(Figures.bandwidth)]",
        [bandwidths, durations, values, sizes],
    )
    assert found[0] == pytest.approx([*map(bandwidth, bandwidths)])
    assert found[1] == pytest.approx([*map(duration, durations)])
    assert found[2:4] == [[*map(seconds_text, values)], [*map(bytes_text, sizes)]]
    assert found[4] == [None] * 6


def test_a_method_that_no_network_has_changed_is_one_line_for_all_of_them(folder, tmp_path):
    def on_two_networks(data):
        data["cells"] = [
            cell | {"network": network}
            for cell in data["cells"]
            for network in ("home", "far")
            if cell["label"] != "asgd" or (network == "home") == (cell["seed"] == 0)
        ]

    contents = contents_of(read_comparison(changed(folder, tmp_path, on_two_networks)))
    assert contents.names == ("sgd", "votes, 10 %", "compskip", "asgd, home", "asgd, far")


def test_no_function_that_a_folder_names_is_imported_or_called(folder, tmp_path, monkeypatch):
    (tmp_path / "harm.py").write_text(
        "from pathlib import Path\n\nPath('done').touch()\n\n\ndef fn(*_): Path('done').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for option in ("dataset", "model", "task", "inner"):
        copy = tmp_path / option
        shutil.copytree(folder / "cells" / "sgd" / "-" / "iid" / "seed-0", copy / "run")
        config, summary = copy / "run" / "config.toml", copy / "run" / "summary.json"
        lines = [line for line in config.read_text().splitlines() if not line.startswith(f"{option} ")]
        config.write_text("\n".join([f'{option} = "harm:fn"', *lines]))
        data = json.loads(summary.read_text())
        data["settings"][option] = "harm:fn"
        summary.write_text(json.dumps(data))
        assert "harm:fn" in page_of(contents_of(read_comparison(copy)))[0]
    assert not (tmp_path / "done").exists()


def test_a_table_of_parts_says_what_a_warm_up_has_cost(contents, page):
    for name in ("set-up", "round 0", "warm-up", "after the warm-up", "at most, by the warm-up"):
        assert f'<th scope="col" class="number">{name}</th>' in page[0]
    parts = contents.series[0].runs[0].cell.summary["parts"]["after_warm_up"]
    assert f"<td class=number>{bytes_text(parts['up_wire_bytes'] + parts['down_wire_bytes'])}</td>" in page[0]


def test_a_partition_is_shown_by_worker_and_class_if_a_run_has_noted_it(folder, page, tmp_path):
    (partition,) = page[1]["partitions"]
    assert partition["name"] == "iid, seed 0"  # as the comparison calls it
    summary = json.loads((folder / "cells" / "sgd" / "-" / "iid" / "seed-0" / "summary.json").read_text())
    assert partition["shares"] == [share["of_class"] for share in summary["shares"]]
    assert len(partition["shares"]) == 4
    wrong = ({}, "many", [3], [{"of_class": [1]}, {"of_class": [1, 2]}], [{"examples": "<b>"}], [{"examples": True}])
    for number, noted in enumerate(wrong):
        copy = tmp_path / str(number)
        shutil.copytree(folder / "cells" / "sgd" / "-" / "iid" / "seed-0", copy / "run")
        (copy / "run" / "summary.json").write_text(json.dumps(summary | {"shares": noted}))
        assert page_of(contents_of(read_comparison(copy)))[1]["partitions"] == []
