"""Pictures of items: what their panels name, which curves they show, and that unfinished items have none."""

import re

import pytest

from laconic.report.item_picture import draw_item
from laconic.reproduce.items import Item, Panel, items
from laconic.reproduce.judging import Found
from laconic.reproduce.measures import FinishedRun, measured
from laconic.reproduce.pictures import axis_label, curves_of, is_drawable, rows_of


def run(row, seed, accuracies, uploads):
    looks = [
        {"step": n + 1, "epoch": float(n + 1), "test_accuracy": accuracy, "train_loss": 1 - accuracy,
         "uploads": uploads[n], "seconds": 2.0 * uploads[n] ** 2, "gap": None}
        for n, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    return FinishedRun(row=row, seed=seed, looks=looks, figures={})


RUNS = {
    "lazy": [run("lazy", 1, [0.5, 0.7, 0.9], [4, 6, 8]), run("lazy", 2, [0.5, 0.7, 0.8], [4, 8, 12])],
    "sgd": [run("sgd", 1, [0.4, 0.6, 0.8], [5, 10, 15])],
}
ACCURACY = Panel(x="epoch", y="accuracy")


def item(*panels, **settings):
    rows = {"rows": ("lazy", "sgd")}
    return Item(
        paper="000", prints="Figure 9", title="a title", kind="trained", name="000-fig9", scaled="All.", panels=panels,
        **{**rows, **settings},
    )  # fmt: skip


def test_every_panel_names_axes_and_rows_that_are_there():
    for name, one in items().items():
        for panel in one.panels:
            assert axis_label(panel.x, panel), name
            assert axis_label(panel.y, panel), name
            if panel.slope is None:
                assert {*rows_of(panel, one)} <= {*one.rows, *one.own}, name
        shown = {row for panel in one.panels for row in rows_of(panel, one)}
        assert {*one.labels} <= shown, name


def test_every_trained_figure_of_the_papers_has_a_picture():
    without = [
        name
        for name, one in items().items()
        if one.kind == "trained" and (one.prints.startswith("Figure") or one.paper == "003") and not one.panels
    ]
    assert not without


def test_a_curve_is_the_mean_over_seeds_with_the_lowest_and_the_highest():
    lazy, sgd = curves_of(ACCURACY, item(ACCURACY, labels={"sgd": "plain"}), Found(cells=RUNS))
    assert (lazy.label, sgd.label) == ("lazy", "plain")
    assert list(lazy.x) == [1, 2, 3]
    assert list(lazy.y) == pytest.approx([50, 70, 85])
    assert list(lazy.lowest) == pytest.approx([50, 70, 80])
    assert list(lazy.highest) == pytest.approx([50, 70, 90])


def test_seeds_that_have_used_unequally_much_are_compared_at_what_they_have_used_on_average():
    panel = Panel(x="uploads", y="accuracy", rows=("lazy",))
    (lazy,) = curves_of(panel, item(panel), Found(cells=RUNS))
    assert list(lazy.x) == [4, 7, 8]  # the last mean, 10, is beyond the end of a seed
    assert list(lazy.lowest) == pytest.approx([50, 65, 70])
    assert list(lazy.highest) == pytest.approx([50, 80, 90])


def test_time_between_looks_is_the_difference_of_the_totals():
    panel = Panel(x="step", y="seconds between looks", rows=("sgd",))
    (curve,) = curves_of(panel, item(panel), Found(cells=RUNS))
    assert list(curve.y) == [50, 150, 250]


POINTS = {f"eps, T = {steps}": {"0": 1 / steps, "1": 2 / steps} for steps in (256, 1024, 4096)}
FIT = Panel(x="1/eps", y="T", rows=("eps",), slope=1.0)


def test_a_fit_has_the_points_that_were_computed_in_the_order_of_what_varies():
    (over_inverse,) = curves_of(FIT, item(FIT), Found(computed=dict(reversed(POINTS.items()))))
    assert list(over_inverse.x) == [256, 1024, 4096]
    assert list(over_inverse.y) == pytest.approx([192, 768, 3072])
    other = Panel(x="T", y="eps", rows=("eps",), slope=-1.0)
    (curve,) = curves_of(other, item(other), Found(computed=POINTS))
    assert list(curve.highest) == pytest.approx([2 / 256, 2 / 1024, 2 / 4096])


def test_an_item_of_which_a_row_is_not_finished_has_no_picture():
    assert is_drawable(item(ACCURACY), Found(cells=RUNS))
    assert not is_drawable(item(ACCURACY), Found(cells={"lazy": RUNS["lazy"]}))
    assert not is_drawable(item(ACCURACY, FIT), Found(cells=RUNS, computed={"exponent": {"0": 1.0}}))
    assert not is_drawable(item(), Found(cells=RUNS)), "it is no figure"


def test_an_unknown_axis_is_refused_with_near_misses():
    with pytest.raises(ValueError, match="unknown axis 'acuracy'; did you mean accuracy"):
        axis_label("acuracy", ACCURACY)


def test_a_picture_has_a_line_and_a_band_for_each_row_and_equal_bytes_for_equal_figures():
    panels = (ACCURACY, Panel(x="uploads", y="loss"), FIT)
    one, found = item(*panels, labels={"eps": "a $fit_"}), Found(cells=RUNS, computed=POINTS)
    picture = draw_item(one, found, ".svg")
    assert picture == draw_item(one, found, ".svg")
    text = picture.decode()
    assert len(re.findall(r'<g id="(?:FillBetween)?PolyCollection', text)) == 5
    for words in ("Paper 000, Figure 9: a title", "test accuracy (%)", "uploads of all workers", "1/eps", "slope 1",
                  "lazy", "sgd", "a $fit_"):  # fmt: skip
        assert f">{words}</text>" in text, words
    assert len(picture) < 40_000


def fitted_run(row, seed, steps, eps):
    looks = [{"step": steps, "epoch": 1.0, "test_accuracy": 0.5, "mean_squared_gradient": eps}]
    return FinishedRun(row=row, seed=seed, looks=looks, figures={})


OF_RUNS = {
    f"GD T={steps}": [fitted_run(f"GD T={steps}", seed, steps, (1 + seed) / steps**0.5) for seed in (0, 1)]
    for steps in (256, 1024, 4096)
}


def test_a_fit_may_be_of_runs_whose_rows_name_what_varies():
    panel = Panel(x="1/eps", y="T", rows=("GD",), slope=2.0)
    one = item(panel, rows=tuple(OF_RUNS))
    (curve,) = curves_of(panel, one, Found(cells=OF_RUNS))
    assert list(curve.x) == [256, 1024, 4096]
    assert list(curve.highest) == pytest.approx([16, 32, 64])
    assert not is_drawable(one, Found(cells={"GD T=256": OF_RUNS["GD T=256"]}))


def test_the_exponent_of_runs_is_that_of_their_steps_over_the_inverse_of_eps():
    found = measured("exponent of steps with: GD T=256, GD T=1024", "GD T=4096", OF_RUNS)
    assert found.by_seed == pytest.approx({0: 2.0, 1: 2.0})
