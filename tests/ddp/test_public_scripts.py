"""Training scripts as users have them, in the folder `public`, train by a method after at most six changed lines.

With `LACONIC_RESULTS=FILE` and `-m nightly` the table is written, as docs/results/clients.md has it.
"""

import os
from pathlib import Path
from statistics import mean

import pytest

from support.extras import needs
from support.public_scripts import CHANGES, FOLDER, N_RANKS, n_changed, train
from support.ranks import run_ranks

pytestmark = pytest.mark.slow

STEPS, EDGE = 50, 5  # losses are compared as means over so many steps at both ends
MAX_CHANGED = 6
BY_TRAINERS = {"by_transformers": "transformers", "by_lightning": "lightning"}


def learned(name, has_method):
    """Train a script on all ranks: the losses at both ends."""
    losses, digests = zip(*run_ranks(train, N_RANKS, name, STEPS, has_method), strict=True)
    assert len(set(digests)) == 1, f"{name}: replicas differ"
    means = [mean(each) for each in zip(*losses, strict=True)]
    assert len(means) == STEPS
    before, after = mean(means[:EDGE]), mean(means[-EDGE:])
    assert after < 0.9 * before, name
    return f"{before:.3f} -> {after:.3f}"


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - BY_TRAINERS.keys()))
def test_a_script_of_torch_learns_by_a_method_and_its_replicas_are_equal(name):
    learned(name, has_method=True)


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CHANGES)
def test_every_script_learns_without_and_with_its_method_and_its_replicas_are_equal(name):
    needs(BY_TRAINERS.get(name, "torch"))
    ends = [learned(name, has_method) for has_method in (False, True)]
    if "LACONIC_RESULTS" in os.environ:
        row = [f"`{name}.py`", str(n_changed(name)), f"`{CHANGES[name][0]}`", *ends, "yes"]
        with Path(os.environ["LACONIC_RESULTS"]).open("a", encoding="utf-8") as file:
            file.write(f"| {' | '.join(row)} |\n")


def test_a_script_that_is_stopped_goes_on_from_its_own_checkpoint_with_the_bits_of_a_straight_run(tmp_path):
    (_, straight), _ = run_ranks(train, N_RANKS, "residual_net", 20, True)
    run_ranks(train, N_RANKS, "residual_net", 10, True, tmp_path)
    (losses, resumed), _ = run_ranks(train, N_RANKS, "residual_net", 20, True, tmp_path)
    assert (len(losses), resumed) == (10, straight)


def test_no_more_than_six_lines_are_changed_and_every_script_says_how_to_start_it():
    assert CHANGES.keys() == {file.stem for file in FOLDER.glob("*.py")}
    for name in CHANGES:
        assert 0 < n_changed(name) <= MAX_CHANGED, name
        assert f"tests/ddp/public/{name}.py" in (FOLDER / f"{name}.py").read_text(encoding="utf-8"), name
