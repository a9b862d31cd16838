"""The page of a comparison in headless Chromium: charts, times, keys, themes, and nothing asked of the network."""

import json
import math
import time

import pytest

from laconic.lab.runs.settings import RunSettings
from laconic.network import Link
from laconic.planning.recorded import read_recorded
from laconic.report.comparison_page.files import write_report
from support.browser import browser, errors_of, requests_of, why_none
from support.comparison_folder import train_into, write_comparison

Keys = pytest.importorskip("selenium.webdriver.common.keys", reason=why_none()).Keys
pytestmark = [
    pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(bool(why_none()), reason=why_none() or "there is one")
]  # fmt: skip
CHARTS = ["metric", "loss", "front", "skips", "staleness", "residual", "agreement", "shares", "timeline"]
COSTS = {"rounds": "round", "epochs": "epoch", "up": "up"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_comparison(tmp_path_factory.mktemp("comparison"))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def opened(started, folder):
    """Opens the page with a view, drawn completely."""

    def open_with(view=""):
        started.get("about:blank")
        errors_of(started), requests_of(started)
        started.get((folder / "report.html").as_uri() + view)
        draw_all(started)
        return started

    return open_with


def draw_all(driver):
    """Charts are drawn when they come near the window; a print needs all of them."""
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    waiting_for(driver, "return document.documentElement.dataset.ready === 'yes'")


def waiting_for(driver, condition):
    """Until a condition of the page holds; a hang ends it."""
    until = time.monotonic() + 60
    while not driver.execute_script(condition):
        assert time.monotonic() < until, condition
        driver.execute_async_script("requestAnimationFrame(arguments[0])")


def lines_of(driver, chart):
    """By the number of the series, x and y of its line; charts are drawn anew when they are near the window."""
    driver.execute_script("document.getElementById(arguments[0]).scrollIntoView()", chart)
    waiting_for(driver, f"return charts.get({chart!r}).near && !charts.get({chart!r}).old")
    found = driver.execute_script(
        "return document.getElementById(arguments[0]).data.filter(one => typeof one.meta === 'number')"
        ".map(one => [one.meta, [...one.x], [...one.y]])",
        chart,
    )
    return {number: (x, y) for number, x, y in found}


def set_field(driver, name, text):
    """Type into a field of the network."""
    field = driver.find_element("id", name)
    field.send_keys(Keys.CONTROL + "a")
    field.send_keys(Keys.BACKSPACE, text)
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def test_every_chart_is_there_without_an_error_and_without_asking_the_network_for_anything(opened):
    driver = opened()
    shown = driver.execute_script(
        "return [...document.querySelectorAll('.chart')].filter(chart => chart.querySelector("
        "'.scatterlayer .trace, .barlayer .trace')).map(chart => chart.id)"
    )
    assert sorted(shown) == sorted(CHARTS)
    assert errors_of(driver) == []
    assert requests_of(driver) == []
    hidden = driver.execute_script("return [...document.querySelectorAll('figure[hidden]')].map(one => one.id)")
    assert sorted(hidden) == ["figure-aborted", "figure-answers"]  # what no run has recorded


def test_lines_go_through_the_recorded_points(opened, data):
    driver = opened()
    for axis, column in COSTS.items():
        driver.find_element("css selector", f"[name=axis][value={axis}]").click()
        lines = lines_of(driver, "metric")
        assert len(lines) == len(data["series"])
        for series in data["series"]:
            marks = [run["marks"] for run in series["runs"] if run["marks"]["round"]]
            at = [mark for mark, value in enumerate(marks[0]["metric"]) if value is not None]
            x, y = lines[series["number"]]
            assert x == pytest.approx([sum(one[column][mark] for one in marks) / len(marks) for mark in at])
            assert y == pytest.approx([100 * sum(one["metric"][mark] for one in marks) / len(marks) for mark in at])


NETWORKS = [
    ({"up": "3Mbit", "down": "", "latency": "40ms", "compute": "7ms"}, Link(bytes_per_s=375e3, latency_s=0.04), 7e-3),
    ({"up": "1Mbit", "down": "8Mbit", "latency": "0", "compute": ""},
     Link(bytes_per_s=125e3, down_bytes_per_s=1e6), None),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "link", "compute_s"), NETWORKS)
def test_on_the_chosen_network_the_time_axis_is_what_plan_says(opened, data, folder, texts, link, compute_s):
    driver = opened("#x=seconds")
    for name, text in texts.items():
        set_field(driver, name, text)
    lines = lines_of(driver, "metric")
    for series in data["series"]:
        expected = []
        for run in series["runs"]:
            if run["marks"]["round"]:
                cell = folder / "cells" / series["name"] / "-" / "iid" / f"seed-{run['seed']}"
                (recorded,) = read_recorded(cell)
                query = recorded.query(link, compute_s)
                step_s = recorded.candidate(query, measure=False).step_s(link)
                expected.append(step_s * recorded.settings.local_steps * run["marks"]["round"][-1])
        x, _ = lines[series["number"]]
        assert x[-1] == pytest.approx(sum(expected) / len(expected), rel=0.01), series["name"]


def test_sliders_move_the_time_axis_and_the_view_comes_back_from_the_address(opened, started):
    driver = opened("#x=seconds")
    before = lines_of(driver, "metric")
    slider = driver.find_element("id", "up-slider")
    slider.send_keys(*[Keys.ARROW_LEFT] * 20)  # a tenth of the bandwidth
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    after = lines_of(driver, "metric")
    assert driver.find_element("id", "up").get_attribute("value") == "1Mbit"
    assert after[0][0][-1] > 1.1 * before[0][0][-1]
    driver.find_element("css selector", "[data-series='1']").click()
    assert sorted(lines_of(driver, "metric")) == [0, 2, 3]
    address = driver.current_url
    assert address.split("#")[1] == "x=seconds&up=1Mbit&hide=1"
    opened("#" + address.split("#")[1])
    assert lines_of(driver, "metric") == {number: line for number, line in after.items() if number != 1}
    assert not driver.find_element("css selector", "[data-series='1']").is_selected()
    assert errors_of(driver) == []


def test_another_layout_times_the_methods_that_admit_it_and_names_the_others(opened):
    driver = opened("#x=seconds&layout=sharded")
    text = driver.find_element("id", "network-says").text
    assert "On their own layout, since sharded is not theirs: asgd." in text.replace("votes, 10 %; ", "")
    other = lines_of(opened("#x=seconds"), "metric")
    assert lines_of(opened("#x=seconds&layout=rank0"), "metric")[0][0][-1] > other[0][0][-1]


def test_a_target_of_one_s_own_changes_the_table(opened):
    driver = opened()
    before = [cell.text for cell in driver.find_elements("css selector", "#results td:nth-child(3)")]
    set_field(driver, "target", "99.9")
    after = [cell.text for cell in driver.find_elements("css selector", "#results td:nth-child(3)")]
    assert any(text.startswith("2 of") for text in before)
    assert all(text.startswith("0 of") for text in after)


def test_the_timeline_shows_the_messages_of_the_chosen_round(opened):
    driver = opened("#line=1&round=3")
    assert "votes, 10 %" in driver.find_element("id", "timeline-says").text
    kinds = driver.execute_script("return document.getElementById('timeline').data.map(trace => trace.name)")
    assert kinds == ["computing", "sending", "receiving"]
    ends = driver.execute_script(
        "return document.getElementById('timeline').data.flatMap("
        "trace => trace.x.map((x, place) => x + trace.base[place]))"
    )
    step = driver.execute_script(
        "return Figures.planned(data.series[1], data.series[1].runs[0], '', view.network)"
    )  # the mean round's
    assert max(ends) == pytest.approx(1000 * step, rel=0.05)


def test_the_keyboard_reaches_everything_and_reads_a_chart_point_by_point(opened):
    driver = opened()
    driver.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    wanted = set(driver.execute_script(
        "return [...document.querySelectorAll('button,input,select,summary,[tabindex]')]"
        ".filter(one => one.checkVisibility() && !one.closest('.js-plotly-plot *')"
        " && !(one.type === 'radio' && !one.checked))"
        ".map((one, place) => one.dataset.reach = String(place))"
    ))  # fmt: skip
    reached, body = set(), driver.find_element("css selector", "body")
    for _ in range(2 * len(wanted)):
        (body if not reached else driver.switch_to.active_element).send_keys(Keys.TAB)
        reached.add(driver.execute_script("return document.activeElement.dataset.reach ?? ''"))
        if wanted <= reached:
            break
    assert wanted <= reached
    assert len(wanted) > 40
    chart = driver.find_element("id", "metric")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    text = driver.find_element("id", "live").get_attribute("textContent")
    assert text.startswith("votes, 10 %; test accuracy: ")
    assert "seeds" in text
    before = driver.execute_script("return [...document.getElementById('metric').layout.xaxis.range]")
    chart.send_keys("+")
    waiting_for(
        driver, f"return document.getElementById('metric').layout.xaxis.range[1] < {max(before)}"
    )  # fmt: skip
    assert errors_of(driver) == []


def test_a_wrong_bandwidth_is_refused_beside_its_field_and_changes_nothing(opened):
    driver = opened("#x=seconds")
    before = lines_of(driver, "metric")
    set_field(driver, "up", "fast")
    assert driver.find_element("id", "up-wrong").text == "such as 100Mbit"
    assert lines_of(driver, "metric") == before


def test_the_theme_follows_the_system_and_a_button(folder, tmp_path):
    background = "return getComputedStyle(document.body).backgroundColor"
    with browser(tmp_path / "profile", dark=True) as driver:
        driver.get((folder / "report.html").as_uri())
        draw_all(driver)
        dark = driver.execute_script(background)
        driver.find_element("id", "theme").click()
        light = driver.execute_script(background)
        assert light == "rgb(255, 255, 255)"
        assert sum(map(int, dark[4:-1].split(","))) < 150
        ink = driver.execute_script("return document.getElementById('metric').layout.font.color")
        assert ink == driver.execute_script(
            "return getComputedStyle(document.documentElement).getPropertyValue('--ink')"
        )


def test_a_phone_shows_the_page_without_scrolling_sideways(folder, tmp_path):
    with browser(tmp_path / "profile", width=390, height=844) as driver:
        driver.get((folder / "report.html").as_uri())
        draw_all(driver)
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        widths = driver.execute_script(
            "return [...document.querySelectorAll('.chart')].filter(one => one.offsetWidth)"
            ".map(one => one.querySelector('.main-svg').getBoundingClientRect().right)"
        )
        assert max(widths) <= 390


def test_names_of_the_folder_are_text_in_every_chart_and_table(tmp_path_factory, started):
    name = "<img src=x onerror=document.title='run'><b>bold</b>"
    folder = write_comparison(tmp_path_factory.mktemp("hostile"), labels={"sgd": name}, seeds=1, epochs=1)
    write_report(folder)
    started.get((folder / "report.html").as_uri())
    draw_all(started)
    assert started.execute_script("return document.images.length + document.querySelectorAll('main b').length") == 0
    assert name in started.find_element("id", "results").text
    started.find_element("id", "metric").send_keys("\ue014")  # arrow right
    assert name in started.find_element("id", "live").get_attribute("textContent")
    assert started.title != "run"


@pytest.mark.parametrize(
    ("kind", "begins"), [("png", "data:image/png;base64,iVBOR"), ("svg", "data:image/svg+xml,%3Csvg")]
)
def test_a_chart_becomes_a_picture_of_its_own(opened, kind, begins):
    driver = opened()
    picture = driver.execute_async_script(
        "Plotly.toImage('metric', {format: arguments[0], width: 800, height: 500}).then(arguments[1])", kind
    )
    assert picture.startswith(begins)
    assert errors_of(driver) == []


def test_a_gap_is_shown_on_a_logarithmic_axis_with_its_target_on_it(started, tmp_path):
    for seed in (0, 1):
        train_into(
            tmp_path / str(seed),
            RunSettings(algorithm="sgd", task="quadratic", task_set={"noise": "0.1"}, epochs=3, seed=seed),
        )
    write_report(tmp_path)
    started.get((tmp_path / "report.html").as_uri())
    draw_all(started)
    axis, line = started.execute_script("const {yaxis, shapes} = metric.layout; return [yaxis, shapes[0].y0];")
    low, high = axis["range"]
    assert axis["type"] == "log"
    assert low < math.log10(line) < high < low + 8
    assert started.find_element("css selector", "#results td:nth-child(3)").text == "2 of 2"


def test_the_command_is_copied(opened):
    driver = opened()
    driver.find_element("id", "copy").click()
    waiting_for(driver, "return document.getElementById('copy-says').textContent !== ''")
    assert driver.find_element("id", "copy-says").text in ("copied", "selected: press Ctrl C")
