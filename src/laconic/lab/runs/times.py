"""When each rank of a real run computed, encoded, waited and decoded: `times.csv`.

Every rank has its own clock. All-reduces bound its offset from rank 0's: no rank leaves one before the last has entered
it. If rank r enters at b_r and leaves at a_r by its clock, that clock is ahead of rank 0's by at least b_r - a_0 and at
most a_r - b_0. The narrowest bounds of several all-reduces hold. (Cristian: Probabilistic Clock Synchronization, 1989,
has the same bound for a request and its reply.) Drift between clocks afterwards is not corrected.
"""

import csv
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from laconic.drivers.distributed.channel import Channel
from laconic.lab.atomic import write_text
from laconic.telemetry.recorder import RoundStats
from laconic.training.distributed_optimizer import DistributedOptimizer

FILE = "times.csv"
PHASES = ("compute", "encode", "wait", "decode", "evaluate")
_ALIGNMENTS = 16
_MAX_TIMES_BYTES = 1 << 28  # four million phases


@dataclass(frozen=True)
class Phase:
    """One phase of one rank in a round. Times are seconds by rank 0's clock, from the start of the run."""

    rank: int
    round: int
    what: str
    """One of PHASES. "wait" is sending, receiving and waiting for other ranks."""
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class PhaseTimes:
    """The phases of all ranks."""

    phases: tuple[Phase, ...]
    accuracy_s: float
    """Maximum offset between two ranks' clocks at the start of the run, in seconds."""

    def write(self, folder: Path) -> None:
        """Write `times.csv` into `folder`, one row per phase."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(column.name for column in fields(Phase))
        writer.writerows(
            (phase.rank, phase.round, phase.what, f"{phase.start_s:.6f}", f"{phase.end_s:.6f}") for phase in self.phases
        )
        write_text(folder / FILE, text.getvalue())


def read_phases(folder: Path) -> list[Phase]:
    """Return the phases of the `times.csv` in `folder`.

    Raises:
        ValueError: A line is not as `PhaseTimes.write` writes it, or there is none. The message names the line.
    """
    phases = []
    with (folder / FILE).open(newline="", encoding="utf-8") as file:
        for row in (reader := csv.reader(file)):
            if reader.line_num == 1:
                continue
            try:
                rank, round_, what, start_s, end_s = row
                phase = Phase(int(rank), int(round_), what, float(start_s), float(end_s))
                if (
                    what not in PHASES
                    or min(phase.rank, phase.round) < 0
                    or not 0 <= phase.start_s <= phase.end_s < 1e9
                ):
                    raise ValueError
            except ValueError:
                raise ValueError(
                    f"{folder / FILE}, line {reader.line_num}: {','.join(row):.80} must be a rank, a round, one of "
                    f"{', '.join(PHASES)}, and two times in seconds, the earlier first"
                ) from None
            phases.append(phase)
    if not phases:
        raise ValueError(f"{folder / FILE}: has no phases")
    return phases


class Stopwatch:
    """Records one rank's phases, by rank 0's clock."""

    def __init__(self, opt: DistributedOptimizer) -> None:
        """Start the clock. Collective: every rank must make a stopwatch."""
        self._channel = opt.driver.channel
        self._zero_s, self._accuracy_s = aligned_zero(self._channel)
        opt.driver.recorder.observe(self._record)
        self._evaluations: list[tuple[float, float]] = []  # since the last round; they lie within a compute phase
        self._rows: list[tuple[int, str, float, float]] = []

    def _record(self, stats: RoundStats) -> None:
        """Record the phases of one round."""
        round_ = stats.round
        for what, start_s, end_s in stats.phases:
            at_s = max(start_s, self._zero_s)
            while self._evaluations and self._evaluations[0][1] <= end_s:
                began_s, ended_s = self._evaluations.pop(0)
                self._note(round_, what, at_s, began_s)
                self._note(round_, "evaluate", began_s, ended_s)
                at_s = ended_s
            self._note(round_, what, at_s, end_s)

    def evaluated(self, start_s: float) -> None:
        """Record the time since `start_s` as evaluation."""
        self._evaluations.append((start_s, time.perf_counter()))

    def _note(self, round_: int, what: str, start_s: float, end_s: float) -> None:
        start_s, end_s = round(start_s - self._zero_s, 6), round(end_s - self._zero_s, 6)
        if self._rows and self._rows[-1][:2] == (round_, what) and self._rows[-1][3] == start_s:
            start_s = self._rows.pop()[2]  # adjacent parts of one phase
        if end_s > start_s:
            self._rows.append((round_, what, start_s, end_s))

    def everybodys(self) -> PhaseTimes:
        """Return all ranks' phases, on every rank. Collective."""
        for start_s, end_s in self._evaluations:  # after the last round
            self._note(self._rows[-1][0] if self._rows else 0, "evaluate", start_s, end_s)
        gathered: list[Any] = self._channel.gather(
            [self._rows, self._accuracy_s], "for its times", ([(int, str, float, float)], float), _MAX_TIMES_BYTES
        )
        phases = [Phase(rank, *row) for rank, (rows, _) in enumerate(gathered) for row in rows]
        return PhaseTimes(phases=tuple(phases), accuracy_s=max(accuracy_s for _, accuracy_s in gathered))


def aligned_zero(channel: Channel) -> tuple[float, float]:
    """Align this rank's clock (`time.perf_counter`) with rank 0's. Collective.

    Returns:
        The time of this rank's clock at which rank 0's starts to count, and the maximum error, in seconds.

    Raises:
        PeerLostError: A rank is lost.
    """
    entered_s, left_s = [], []
    for _ in range(_ALIGNMENTS):
        flag = torch.zeros(1)
        entered_s.append(time.perf_counter())
        channel.all_reduce(flag, "to align its clock")
        left_s.append(time.perf_counter())
        channel.control_bytes += 2 * flag.element_size()
    gathered = channel.gather([entered_s, left_s], "to align its clock", ([float], [float]), max_bytes=64 * _ALIGNMENTS)
    rank0_entered_s, rank0_left_s = gathered[0]
    low_s, high_s = bounds_of(entered_s, left_s, rank0_entered_s, rank0_left_s)
    # Rank 0 has no offset from itself, though its bounds are as wide as its fastest all-reduce.
    ahead_s, accuracy_s = (0.0, 0.0) if channel.rank == 0 else ((low_s + high_s) / 2, (high_s - low_s) / 2)
    return rank0_left_s[-1] + ahead_s, accuracy_s


def bounds_of(
    entered_s: Sequence[float], left_s: Sequence[float], rank0_entered_s: Sequence[float], rank0_left_s: Sequence[float]
) -> tuple[float, float]:
    """Return the minimum and maximum seconds by which a rank's clock is ahead of rank 0's."""
    low_s = max(entered - left for entered, left in zip(entered_s, rank0_left_s, strict=True))
    high_s = min(left - entered for left, entered in zip(left_s, rank0_entered_s, strict=True))
    return low_s, high_s


def compute_s_of(phases: Iterable[Phase]) -> float:
    """Return the median seconds that a rank computed in a round; 0 if there are no compute phases."""
    sums: dict[tuple[int, int], float] = {}
    for phase in phases:
        if phase.what == "compute":
            sums[phase.rank, phase.round] = sums.get((phase.rank, phase.round), 0.0) + phase.end_s - phase.start_s
    ordered = sorted(sums.values())
    return ordered[len(ordered) // 2] if ordered else 0.0
