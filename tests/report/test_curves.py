"""The picture of runs: what its axes say, and that names in it are names."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from laconic.contract import ModelSpec
from laconic.lab.runs.record import Record, Row
from laconic.lab.runs.settings import RunSettings
from laconic.report.curves import draw_curves
from laconic.report.drawing import line_style, picture_bytes
from laconic.report.visible import visible
from laconic.telemetry.meter import Count
from laconic.telemetry.traffic import Traffic
from support.inputs import over_inputs


def record_of(*ends, algorithm="sgd", driver="simulated"):
    """A run of an epoch for each (seconds, bytes up, bytes down)."""
    rows = [
        Row(
            epoch=epoch, round=epoch, train_loss=1 / epoch, test_accuracy=epoch / 10, own_accuracy_lowest=None,
            own_accuracy_mean=None, own_accuracy_highest=None, consensus_distance=None, up_wire_bytes=up,
            down_wire_bytes=down, up_payload_bits=8 * up, up_paper_bits=8 * up, skips_up=0, skips_down=0,
            aborted_rounds=0, seconds=seconds,
        )
        for epoch, (seconds, up, down) in enumerate(ends, 1)
    ]  # fmt: skip
    settings = RunSettings(algorithm=algorithm, driver=driver)
    traffic = Traffic(up=Count(), down=Count(), setup=Count(), rounds=len(rows), aborted_rounds=0, seconds={})
    return Record(settings=settings, spec=ModelSpec.of_sizes(10), layout="rank0", traffic=traffic, rows=rows)


def texts_of(*records):
    return re.findall("<!-- (.*?) -->", draw_curves(records, ".svg").decode())


def test_axes_say_whose_seconds_and_which_bytes_in_one_unit():
    simulated = texts_of(record_of((30.0, 10**6, 10**5), (90.0, 2 * 10**6, 10**5)), record_of((70.0, 10**5, 10**5)))
    assert {"epochs", "training loss", "test accuracy (%)", "simulated time (minutes)"} <= set(simulated)
    assert "wire bytes up and down, all workers (MB)" in simulated
    assert "wall time (seconds)" in texts_of(record_of((2.0, 10, 10), driver="processes"))


def test_time_that_was_not_simulated_is_not_shown_as_no_time():
    texts = texts_of(record_of((None, 10, 10)))
    assert "no simulated time:" in texts
    assert "simulated time" in texts


@pytest.mark.slow
def test_runs_far_apart_stand_on_a_logarithmic_axis_and_all_bytes_count():
    near, far = record_of((1.0, 100, 900), (2.0, 200, 1800)), record_of((1.0, 10, 40_000), (2.0, 20, 80_000))
    assert "wire bytes up and down, all workers (KB)" in texts_of(near, far)
    ticks = [draw_curves([near, other], ".svg").count(b"line2d") for other in (far, near)]
    assert ticks[0] > ticks[1], "a logarithmic axis has ticks between those with numbers"


@pytest.mark.slow
def test_a_run_that_diverged_leaves_the_others_to_be_seen_and_inf_and_nan_draw_nothing():
    good, bad = record_of((1.0, 10, 10), (2.0, 20, 20)), record_of((1.0, 10, 10), (2.0, 20, 20))
    for loss, ticks in ((1e30, True), (float("inf"), False), (float("nan"), False)):
        bad.rows[1] = replace(bad.rows[1], train_loss=loss)
        picture = draw_curves([good, bad], ".svg")
        assert (b"10^{" in picture or b"mathdefault" in picture) is ticks


def test_28_lines_are_all_different_and_the_last_point_has_a_marker():
    styles = [line_style(number, 5) for number in range(28)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 28
    assert len({(style["color"], style["marker"]) for style in styles}) == 28
    for n_points in (1, 2, 8, 9, 100):
        begin, every = line_style(0, n_points)["markevery"]
        marked = range(begin, n_points, every)
        assert marked[-1] == n_points - 1
        assert len(marked) <= 8


@pytest.mark.slow
@over_inputs("name", ["$x_{$", "_hidden", "a\x1b[1m", "two\nlines", "\u202ex", "a" * 300])
def test_a_name_in_a_picture_is_a_name(name):
    record = record_of((1.0, 10, 10))
    object.__setattr__(record.settings, "dataset", name)
    assert visible(name) in "".join(texts_of(record))


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_pictures_are_of_the_kind_that_was_asked_for_and_the_same_each_time(ending, begins):
    records = [record_of((1.0, 10, 10), (2.0, 20, 20)), record_of((1.5, 10, 10), algorithm="signsgd-mv")]
    picture = draw_curves(records, ending)
    assert picture.startswith(begins)
    assert picture == draw_curves(records, ending.upper())


def test_a_picture_does_not_follow_the_settings_of_the_user_s_own_pictures():
    import matplotlib

    expected = picture_bytes((2, 2), ".svg", "t", lambda figure: figure.suptitle("x"))
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40, "savefig.facecolor": "black"}):
        assert picture_bytes((2, 2), ".svg", "t", lambda figure: figure.suptitle("x")) == expected
        assert matplotlib.rcParams["font.size"] == 40


@pytest.mark.slow
@over_inputs("backend", ["module://matplotlib_inline.not_there", "no such"])
def test_a_backend_that_is_not_there_costs_no_picture(backend):
    code = (
        "from laconic.report.drawing import picture_bytes; import os; "
        "print(len(picture_bytes((1, 1), '.svg', 't', lambda figure: None)), os.environ['MPLBACKEND'])"
    )
    environment = dict(os.environ, MPLBACKEND=backend)
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    n_bytes, left = ended.stdout.strip().split(" ", 1)
    assert int(n_bytes) > 500
    assert left == backend
