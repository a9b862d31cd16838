"""The rules of reproductions: each verdict on both sides of its bound."""

import pytest

from laconic.reproduce.rules import (
    Measured,
    Verdict,
    computed,
    exponent,
    interval,
    no_loss,
    order,
    verdict_of_all,
)

HOLDS, BAND, NOT = Verdict


def of(*values, is_bound=False):
    return Measured(by_seed=dict(enumerate(values)), is_bound=is_bound)


def wrong(judge, cases):
    return [
        (args, settings, expected) for args, settings, expected in cases if judge(*args, **settings) is not expected
    ]


def test_an_order_holds_if_the_mean_is_outside_the_band_and_two_of_three_seeds_agree():
    assert not wrong(order, [
        ((of(0.5, 0.6, 0.1),), {"band": 0.3}, HOLDS),
        ((of(0.5, 0.9, -0.1),), {"band": 0.3}, HOLDS),
        ((of(3.0, -0.1, -0.1),), {"band": 0.3}, NOT),  # one seed of luck
        ((of(0.3, 0.3, 0.3),), {"band": 0.3}, BAND),
        ((of(-0.3, -0.3, -0.3),), {"band": 0.3}, BAND),
        ((of(-0.4, -0.4, -0.4),), {"band": 0.3}, NOT),
        ((of(0.5, 0.9, -0.1),), {"band": 0.3, "every_seed": True}, NOT),
        ((of(0.5, 0.9, 0.1),), {"band": 0.3, "every_seed": True}, HOLDS),
        ((of(2.0),), {}, HOLDS),
        ((of(0.0),), {}, BAND),
    ])  # fmt: skip


def test_no_loss_holds_down_to_the_margin_and_is_within_the_band_for_less_than_the_luck_of_three_seeds():
    assert not wrong(no_loss, [
        ((of(0.2, 0.1, 0.3),), {"margin": 0.5}, HOLDS),
        ((of(-0.5, -0.5, -0.5),), {"margin": 0.5}, HOLDS),
        ((of(-0.79, -0.79, -0.79),), {"margin": 0.5}, BAND),
        ((of(-0.8, -0.8, -0.8),), {"margin": 0.5}, NOT),
    ])  # fmt: skip


def test_an_interval_holds_inside_and_is_within_the_band_for_a_tenth_of_the_end_that_it_misses():
    assert not wrong(interval, [
        ((of(0.4, 0.7),), {"low": 0.4, "high": 0.7}, HOLDS),
        ((of(0.7),), {"low": 0.4, "high": 0.7}, HOLDS),
        ((of(0.76),), {"low": 0.4, "high": 0.7}, BAND),
        ((of(0.78),), {"low": 0.4, "high": 0.7}, NOT),
        ((of(0.37),), {"low": 0.4, "high": 0.7}, BAND),
        ((of(0.35),), {"low": 0.4, "high": 0.7}, NOT),
        ((of(5.0),), {"high": 5.0}, HOLDS),
        ((of(-3.0),), {"high": 5.0}, HOLDS),
    ])  # fmt: skip


def test_an_exponent_holds_within_0_15_and_is_within_the_band_to_0_25_or_as_far_as_asked_for():
    assert not wrong(exponent, [
        ((of(1.35, 1.35, 1.35),), {"expected": 1.5}, HOLDS),
        ((of(1.34),), {"expected": 1.5}, BAND),
        ((of(1.75),), {"expected": 1.5}, BAND),
        ((of(1.76),), {"expected": 1.5}, NOT),
        ((of(1.76),), {"expected": 1.5, "holds": 0.3, "band": 0.5}, HOLDS),
        ((of(-0.46),), {"expected": -0.5, "holds": 0.05}, HOLDS),
    ])  # fmt: skip


def test_a_computed_figure_holds_if_it_is_the_printed_one_after_rounding_to_the_printed_digits():
    assert not wrong(computed, [
        ((328.2, "328"), {}, HOLDS),
        ((327.4, "328"), {}, NOT),
        ((7.8675e11, "7.87E+11"), {}, HOLDS),
        ((7.8575e11, "7.87E+11"), {}, NOT),
        ((426.25244140625, "426.25"), {}, HOLDS),
        ((14 / 9, "1.55"), {}, NOT),
        ((14 / 9, "1.55"), {"truncated": True}, HOLDS),
        ((0.5, "1"), {}, HOLDS),
    ])  # fmt: skip


def test_a_run_that_misses_its_target_is_within_the_band_and_no_better():
    missed = of(0.5, 0.5, 0.5, is_bound=True)
    found = [order(missed), no_loss(missed, margin=0.5), interval(missed, low=0.4, high=0.7)]
    assert found == [BAND] * 3
    assert of(1.0).over(of(2.0, is_bound=True)).is_bound


def test_figures_are_paired_by_seed_and_a_seed_that_only_one_has_is_left_out():
    ours = Measured(by_seed={1: 2.0, 19: 4.0, 31: 6.0})
    others = Measured(by_seed={19: 1.0, 31: 2.0})
    assert ours.less(others).by_seed == {19: 3.0, 31: 4.0}
    assert ours.over(others).by_seed == {19: 4.0, 31: 3.0}
    assert (ours.mean, ours.lowest, ours.highest) == (4.0, 2.0, 6.0)
    with pytest.raises(ValueError, match=r"no seed is in both: \[1\] and \[2\]"):
        Measured(by_seed={1: 1.0}).less(Measured(by_seed={2: 1.0}))


def test_the_verdict_of_several_rules_is_the_worst_of_them():
    assert verdict_of_all([HOLDS, HOLDS]) is HOLDS
    assert verdict_of_all([BAND, HOLDS]) is BAND
    assert verdict_of_all([BAND, NOT, HOLDS]) is NOT
