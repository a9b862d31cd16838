"""What each round of a run sent, and how it went: `rounds.csv`, a line a round."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from laconic.contract import Algorithm
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.simulated.rounds import Simulated
from laconic.telemetry.meter import Count
from laconic.telemetry.recorder import Recorder, RoundStats

FILE = "rounds.csv"
_MEASURED = 200  # rounds of a run with norms of residuals and counts of votes: each takes a pass over them


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """One round. Bytes, bits and skips are of this round alone, added up over the workers."""

    round: int
    """From 1."""
    epoch: float
    """Passes over the data so far."""
    up_wire_bytes: int
    down_wire_bytes: int
    up_payload_bits: int
    up_paper_bits: float
    skips_up: int
    skips_down: int
    aborted: int
    """1 if it had no effect, else 0."""
    train_loss: float
    """Mean over the workers, and over the local steps since the last round."""
    seconds: float | None
    """Since the start, as `Record.clock` says; None where nothing takes simulated time."""
    staleness_max: int | None
    """Rounds since the oldest upload that counts, or updates since a gradient's model was taken; None where there is no
    such thing."""
    residual_norm: float | None
    """Norm of all workers' residuals; in some 200 rounds of a run."""
    vote_agreement: float | None
    """Share of the votes for a coordinate that opposite ones do not cancel: `Votes.agreement`, in these rounds."""
    votes: int | None
    """`Votes.possible`, over which the agreement is a mean."""


_COLUMNS = tuple(column.name for column in fields(RoundRow))
_ADDED = ("up_wire_bytes", "down_wire_bytes", "up_payload_bits", "up_paper_bits", "skips_up", "skips_down")
_SCHEMA = tuple(int | float | None for _ in _COLUMNS)
_MAX_BYTES = 1 << 28


class RoundLog:
    """Collects the rounds of a run as they end."""

    SCHEMA: ClassVar = {"rows": [_SCHEMA], "losses": [float]}
    """What `saved` returns."""

    def __init__(self, recorder: Recorder, algorithm: Algorithm, *, rounds: int, steps_per_epoch: int) -> None:
        """Observe a driver from now on.

        Args:
            recorder: The driver's.
            algorithm: Its method.
            rounds: How many there will be.
            steps_per_epoch: To tell the epoch.
        """
        self._steps_per_epoch = steps_per_epoch
        self._ended: list[RoundStats] = []  # in this step
        self._losses: list[float] = []  # since the last round
        self._rows: list[RoundRow] = []
        recorder.observe(
            self._ended.append, residual_norm="residual" in algorithm.worker_slots,
            vote_agreement=True, every=max(1, math.ceil(rounds / _MEASURED)),
        )  # fmt: skip

    def end_step(self, step: int, loss: float, seconds: float | None, staleness: "Staleness | None" = None) -> None:
        """Take up the round that a step has ended, if it has.

        Args:
            step: The number of steps that are taken.
            loss: The mean of the workers' losses.
            seconds: Since the start.
            staleness: Asked for the largest in this round; None where nothing tells.
        """
        self._losses.append(loss)
        for stats in self._ended:
            up, down = _sum(stats.up.values()), _sum(stats.down.values())
            self._rows.append(
                RoundRow(
                    round=stats.round + 1, epoch=step / self._steps_per_epoch, up_wire_bytes=up.wire_bytes,
                    down_wire_bytes=down.wire_bytes, up_payload_bits=up.payload_bits, up_paper_bits=up.paper_bits,
                    skips_up=up.skips, skips_down=down.skips, aborted=int(stats.aborted),
                    train_loss=sum(self._losses) / len(self._losses), seconds=seconds,
                    staleness_max=None if staleness is None else staleness.in_round(),
                    residual_norm=stats.residual_norm,
                    vote_agreement=None if stats.votes is None else stats.votes.agreement,
                    votes=None if stats.votes is None else stats.votes.possible,
                )
            )  # fmt: skip
            self._losses = self._losses[-1:] if len(self._ended) > 1 else []
        self._ended.clear()

    def taken(self) -> tuple[RoundRow, ...]:
        """Return the rounds since the last call."""
        rows, self._rows = tuple(self._rows), []
        return rows

    def saved(self) -> dict[str, Any]:
        """Return the rounds since the last call of `taken`, and the losses since the last round."""
        return {"rows": [list(astuple(row)) for row in self._rows], "losses": [float(loss) for loss in self._losses]}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `saved` returned."""
        self._rows = [RoundRow(**dict(zip(_COLUMNS, values, strict=True))) for values in saved["rows"]]
        self._losses = list(saved["losses"])


def of_all_ranks(channel: Channel, rows: Sequence[RoundRow], n_workers: int) -> tuple[RoundRow, ...]:
    """Return the rounds that this rank and all others have had, each added up over the ranks. Collective.

    Args:
        channel: Of this rank.
        rows: Its own rounds.
        n_workers: By which the losses are divided.
    """
    gathered = channel.gather([list(astuple(row)) for row in rows], "for its rounds", [_SCHEMA], _MAX_BYTES)
    by_round: dict[int, list[RoundRow]] = {}
    for of_rank in gathered:
        for values in of_rank:
            row = RoundRow(**dict(zip(_COLUMNS, values, strict=True)))
            by_round.setdefault(row.round, []).append(row)
    return tuple(_added(by_round[number], n_workers) for number in sorted(by_round))


def _added(rows: Sequence[RoundRow], n_workers: int) -> RoundRow:
    """Return one round of all ranks."""
    norms = [row.residual_norm for row in rows if row.residual_norm is not None]
    votes = sum(row.votes or 0 for row in rows)
    alike = sum(round((row.vote_agreement or 0) * (row.votes or 0)) for row in rows)  # a whole number of votes
    return RoundRow(
        round=rows[0].round, epoch=rows[0].epoch, **{name: sum(getattr(row, name) for row in rows) for name in _ADDED},
        aborted=max(row.aborted for row in rows), train_loss=sum(row.train_loss for row in rows) / n_workers,
        seconds=rows[0].seconds, staleness_max=None, residual_norm=math.hypot(*norms) if norms else None,
        vote_agreement=alike / votes if votes else None, votes=votes or None,
    )  # fmt: skip


class Staleness:
    """The largest staleness in each round of a simulated method that has one."""

    SCHEMA: ClassVar = [(range(1 << 62), range(1 << 62))]
    """What `saved` returns."""

    def __init__(self, driver: Simulated) -> None:
        """Look at the workers of a driver."""
        self._driver = driver
        self._before: dict[int, int] = {}

    def in_round(self) -> int | None:
        """Return the largest since the last call."""
        counts = [self._driver.updates_of(worker.rank) for worker in self._driver.workers]
        if any(each is not None for each in counts):
            now: dict[int, int] = {}
            for each in counts:
                for age, number in ({} if each is None else each.staleness).items():
                    now[age] = now.get(age, 0) + number
            ages = [age for age, number in now.items() if number > self._before.get(age, 0)]
            self._before = now
            return max(ages, default=None)
        memories = [worker.me.memory for worker in self._driver.workers]
        return max((int(memory.number("delay", 0)) for memory in memories if "delay" in list(memory)), default=None)

    def saved(self) -> list[list[int]]:
        """Return the ages that were counted before, each with its number."""
        return [[age, number] for age, number in self._before.items()]

    def restore(self, saved: Iterable[tuple[int, int]]) -> None:
        """Go on from what `saved` returned."""
        self._before = dict(saved)


def rounds_text(rows: Iterable[RoundRow], *, head: bool) -> str:
    """Return lines of `rounds.csv`, with the names of the columns above if `head`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if head:
        writer.writerow(_COLUMNS)
    writer.writerows(map(astuple, rows))
    return text.getvalue()


def lines_until(path: Path, last: int) -> str:
    """Return the lines of a `rounds.csv` up to a round, with the names of the columns; those alone if there is none."""
    if not path.is_file():
        return rounds_text([], head=True)
    head, *lines = path.read_bytes().decode().splitlines(keepends=True)
    remaining = [line for line in lines if line.endswith("\n") and _round_of(line) <= last]
    return "".join([head, *remaining])


def rounds_in(path: Path) -> int:
    """Return how many rounds a `rounds.csv` has, from round 1 on without a gap or a broken line."""
    if not path.is_file():
        return 0
    head, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) or [""]
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n") or line.count(",") != head.count(",") or _round_of(line) != number:
            return number - 1
    return len(lines)


def _round_of(line: str) -> float:
    number = line.partition(",")[0]
    return int(number) if number.isdecimal() else math.inf


def _sum(counts: Iterable[Count]) -> Count:
    total = Count()
    for count in counts:
        total = total + count
    return total
