"""What each rank did in some rounds of a run that recorded its times, for the timeline of a page."""

from pathlib import Path

from laconic.lab.runs.times import FILE as TIMES
from laconic.lab.runs.times import PHASES, read_phases

_MAX_ROUNDS = 16
_MAX_RANKS = 32

RecordedRound = tuple[int, list[tuple[int, int, float, float]]]
"""A round, and its phases: rank, number of the phase in PHASES, start and end in seconds from the round's start."""


def recorded_rounds(folder: Path) -> list[RecordedRound]:
    """Return some rounds of the run in `folder`, evenly over the run; none if it recorded no times.

    Raises:
        ValueError: `times.csv` is not as `laconic run` writes it.
    """
    if not (folder / TIMES).is_file():
        return []
    by_round: dict[int, list[tuple[int, int, float, float]]] = {}
    for phase in read_phases(folder):
        if phase.rank < _MAX_RANKS:
            one = (phase.rank, PHASES.index(phase.what), phase.start_s, phase.end_s)
            by_round.setdefault(phase.round, []).append(one)
    rounds = sorted(by_round)
    chosen = sorted({rounds[number * (len(rounds) - 1) // max(1, _MAX_ROUNDS - 1)] for number in range(_MAX_ROUNDS)})
    return [(number, _from_start(by_round[number])) for number in chosen]


def _from_start(phases: list[tuple[int, int, float, float]]) -> list[tuple[int, int, float, float]]:
    begin_s = min(start_s for _, _, start_s, _ in phases)
    return [(rank, kind, round(start - begin_s, 7), round(end - begin_s, 7)) for rank, kind, start, end in phases]
