"""The timeline of a run that `laconic run --record-times` recorded, with a lane per rank."""

import json
import tomllib
from pathlib import Path
from typing import Any

from laconic.errors import Named, OptionError
from laconic.lab.runs.times import FILE, Phase, read_phases
from laconic.report.timeline.bars import BarKind, Stretch, Timeline, timeline_of_stretches
from laconic.units import seconds_text

ROUNDS_SHOWN = 4

_KINDS = {
    "compute": BarKind.COMPUTE, "encode": BarKind.ENCODE, "wait": BarKind.EXCHANGE, "decode": BarKind.DECODE,
    "evaluate": BarKind.EVALUATE,
}  # fmt: skip


def draw_run(folder: Path, *, from_round: int | None = None, n_rounds: int = ROUNDS_SHOWN) -> Timeline:
    """Make the timeline of some rounds of a recorded run.

    Args:
        folder: The folder of the run.
        from_round: The first round; None takes rounds in the middle, after the warm-up of processes and caches.
        n_rounds: The maximum number of rounds.

    Raises:
        ValueError: The folder has no recorded times, a file is not as `laconic run` writes it, or the run does not
            have these rounds.
    """
    if not (folder / FILE).is_file():
        raise ValueError(
            f"{folder}: there is no {FILE} in it; run again with --driver processes --record-times --out {folder}"
        )
    phases = read_phases(folder)
    last = max(phase.round for phase in phases)
    begin = max(0, (last + 1 - n_rounds) // 2) if from_round is None else from_round
    if not 0 <= begin <= last:
        raise OptionError(Named("from_round", begin), f" must be between 0 and {last}, the run's last")
    end = min(last, begin + n_rounds - 1)
    shown = [phase for phase in phases if begin <= phase.round <= end]
    config, summary = _read(folder)
    n_workers, n_ranks = int(config["workers"]), max(phase.rank for phase in phases) + 1
    nodes = [f"rank {rank}" if rank < n_workers else "server" for rank in range(n_ranks)]
    stretches = [
        Stretch(phase.rank, _KINDS[phase.what], phase.round, round(phase.start_s * 1e9), round(phase.end_s * 1e9))
        for phase in shown
    ]
    title = f"{config['algorithm']}, {summary['layout']}, {n_workers} workers: rounds {begin} to {end} of 0 to {last}"
    return timeline_of_stretches(title, stretches, nodes=nodes, notes=_notes(shown, summary))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        _ = config["algorithm"], int(config["workers"]), summary["layout"], float(summary["clocks_apart_s"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{folder}: config.toml and summary.json are not what `laconic run` writes ({error})"
        ) from None
    return config, summary


def _notes(phases: list[Phase], summary: dict[str, Any]) -> list[str]:
    """Return the shares of the phases, and the maximum offset between clocks."""
    sums = dict.fromkeys(_KINDS, 0.0)
    for phase in phases:
        sums[phase.what] += phase.end_s - phase.start_s
    total = sum(sums.values()) or 1.0
    shares = ", ".join(f"{what} {part / total:.0%}" for what, part in sums.items() if part)
    apart = seconds_text(float(summary["clocks_apart_s"]))
    return [
        f"shares of the ranks' time: {shares}",
        f"two ranks' clocks are at most {apart} apart at the start of the run",
    ]
