"""What ranks did in some rounds of a run that recorded its times."""

import pytest

from laconic.lab.runs.times import PHASES, Phase, PhaseTimes
from laconic.report.comparison_page.phases import recorded_rounds


def write_times(folder, n_rounds, n_ranks):
    phases = [
        Phase(rank, number, what, number + 0.1 * place, number + 0.1 * place + 0.05)
        for number in range(n_rounds)
        for rank in range(n_ranks)
        for place, what in enumerate(PHASES)
    ]
    PhaseTimes(phases=tuple(phases), accuracy_s=0.0).write(folder)


@pytest.mark.parametrize(("n_rounds", "n_ranks"), [(1, 2), (7, 40), (400, 3)])
def test_a_few_rounds_over_all_of_the_run_are_shown_from_their_start(tmp_path, n_rounds, n_ranks):
    write_times(tmp_path, n_rounds, n_ranks)
    found = recorded_rounds(tmp_path)
    numbers = [number for number, _ in found]
    assert (numbers[0], numbers[-1]) == (0, n_rounds - 1)
    assert len(found) == min(n_rounds, 16)
    for _, phases in found:
        assert len(phases) == min(n_ranks, 32) * len(PHASES)
        assert phases[:2] == [(0, 0, 0.0, 0.05), (0, 1, 0.1, 0.15)]


def test_a_run_without_recorded_times_has_none(tmp_path):
    assert recorded_rounds(tmp_path) == []
