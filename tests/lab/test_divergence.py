"""A run that diverged is one; a run that lost a round, learns slowly or overfits is none."""

import math

import pytest

from laconic.lab.runs.divergence import EpochEnd, Guess, why_diverged

GUESS = Guess(accuracy=0.1, loss=math.log(10))


def run_of(*epochs):
    """A run by its epochs: rounds and aborted rounds of each, loss and accuracy."""
    ends, rounds, aborted = [], 0, 0
    for in_epoch, aborted_in_epoch, loss, accuracy in epochs:
        rounds, aborted = rounds + in_epoch, aborted + aborted_in_epoch
        ends.append(EpochEnd(rounds=rounds, aborted=aborted, loss=loss, accuracy=accuracy))
    return ends


DIVERGED = {
    "sgd with a learning rate of 1e30": run_of((11, 10, math.nan, 0.0975), (11, 11, math.nan, 0.0975)),
    "the same in one epoch": run_of((22, 21, math.nan, 0.0975)),
    "every round of one epoch": run_of((2, 2, math.nan, 0.1)),
    "one round to an epoch, all but the first aborted": run_of((1, 0, 2.3, 0.1), *[(1, 1, math.nan, 0.1)] * 9),
    "no effect, though losses are finite": run_of((11, 11, 2.3, 0.08)),
    "good until the last epoch, then stuck": run_of((11, 0, 0.1, 0.95), (11, 11, math.nan, 0.95)),
    "a few rounds from the end": run_of((20, 0, 0.1, 0.95), (20, 4, math.nan, 0.0975)),
    "in the last round of all": run_of((20, 0, 0.1, 0.95), (20, 1, math.nan, 0.0975)),
    "an infinite loss with finite gradients": run_of((11, 0, math.inf, 0.3)),
    "at chance without an aborted round": run_of((11, 0, 65.0, 0.1031), (11, 0, 4.26, 0.1031)),
    "far above the start, a little above chance": run_of((11, 0, 273.0, 0.18), (11, 0, 655.0, 0.33)),
    "dead units after aborted rounds": run_of((11, 5, math.nan, 0.1), (11, 0, 2.30, 0.1)),
}
FINE = {
    "one aborted round": run_of((11, 1, math.nan, 0.93)),
    "one aborted round of two": run_of((2, 1, math.nan, 0.5)),
    "one aborted round of a run that has just begun": run_of((11, 1, math.nan, 0.12)),
    "one aborted round in an epoch of one": run_of(*[(1, 0, 2.0, 0.4)] * 9, (1, 1, math.nan, 0.4)),
    "some aborted rounds, and the run went on": run_of((11, 3, math.nan, 0.5), (11, 2, math.nan, 0.9)),
    "most rounds aborted by faults, whose losses are finite": run_of((11, 7, 0.5, 0.9)),
    "a slow learner": run_of((11, 0, 2.318, 0.078)),
    "an overfitted model of few classes": run_of((11, 0, 0.001, 0.15)),
    "a rough start that ends well": run_of((11, 0, 900.0, 0.2), (11, 0, 0.5, 0.9)),
    "a sign method with large values and many right answers": run_of((11, 0, 30.0, 0.9)),
}


@pytest.mark.parametrize("name", DIVERGED)
def test_a_run_that_diverged_is_recognized(name):
    assert why_diverged(DIVERGED[name], GUESS)


@pytest.mark.parametrize("name", FINE)
def test_no_other_run_is_called_so(name):
    assert why_diverged(FINE[name], GUESS) is None


def test_without_a_guess_what_needs_none_is_still_recognized():
    assert why_diverged(DIVERGED["sgd with a learning rate of 1e30"], None)
    assert why_diverged(FINE["one aborted round"], None) is None


def test_the_share_that_is_won_is_counted_from_a_guess():
    rare = Guess(accuracy=0.9, loss=math.log(2))
    assert rare.share_won(0.9) == 0
    assert rare.share_won(0.95) == pytest.approx(0.5)
    assert why_diverged(run_of((11, 0, 1.5, 0.9)), rare)
