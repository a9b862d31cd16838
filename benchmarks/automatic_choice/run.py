"""Times what "auto" has chosen beside every method and layout that it could have, on shaped links.

    python benchmarks/automatic_choice/run.py --json automatic_choice.json

It needs Linux, root and iproute2; without them it prints so and ends. README.md explains the measurements.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "real_network"))

from arguments import a_bandwidth, a_file
from bed import UNDO_S, Bed, why_not
from choice_rank import AUTO, ChoiceRank
from ranks import ranks_in
from rich.console import Console

from laconic.bench.measure import quartiles
from laconic.contract import ALGORITHMS
from laconic.lab.processes.stopping import Stopped, end_at_once, exit_code, stopped_by_signals, stopped_line
from laconic.units import bandwidth, bytes_text

PLAIN = "sgd on allreduce"
UNSHAPED = "none"
BAR = 1.10
"""How long a step of what was chosen may take, in times of the best that could have been."""
_NEAR = 4.0  # times the fastest, in a turn, up to which a candidate is timed again


def main(arguments: Sequence[str]) -> int:
    """Run the bench and return the exit code, which is 0 also if the bench cannot run here."""
    parser = argparse.ArgumentParser(description='Time what "auto" has chosen beside what it could have.')
    parser.add_argument("--workers", type=_whole(2, 32), default=2, help="number of processes, 2 to 32")
    parser.add_argument("--parameters", type=_whole(1000, 10**9), default=1_000_000, help="number of parameters")
    parser.add_argument("--methods", nargs="+", default=["csgd", "ec-sgd"], choices=sorted(ALGORITHMS))
    parser.add_argument("--links", nargs="+", type=_link, default=["10Mbit", "100Mbit", "1Gbit", UNSHAPED])
    parser.add_argument("--turns", type=_whole(1, 1000), default=7, help="steps of each, in turns")
    parser.add_argument("--json", type=a_file, default=None, metavar="FILE", help="JSON file for all figures")
    asked = parser.parse_args(arguments)
    console = Console()
    refused = why_not()
    if refused:
        console.print(f"skipped: {refused}", highlight=False, markup=False, soft_wrap=True)
        return 0
    found: dict[str, Any] = {}
    try:
        with (
            stopped_by_signals(end_at_once, unwind_s=UNDO_S),
            Bed(asked.workers) as bed,
            ranks_in(bed, ChoiceRank) as ranks,
        ):
            names = ranks.call("set_up", d=asked.parameters, methods=asked.methods)[0]
            for link in asked.links:
                bed.shape(None if link == UNSHAPED else (8 * bandwidth(link),) * 2)
                chosen = ranks.call("choose")[0]
                once = _slowest(ranks.call("measure", turns=2, names=names))
                limit_s = _NEAR * min(map(min, once.values()))
                near = [name for name in names if min(once[name]) <= limit_s]
                seconds = _slowest(ranks.call("measure", turns=asked.turns, names=[*near, AUTO]))
                found[link] = chosen | {"once": once, "seconds": seconds}
                bed.shape(None)
                for line in lines_of(link, found[link]):
                    console.print(line, highlight=False, soft_wrap=True)
    except Stopped as stopped:
        console.print(f"{stopped_line(stopped.number)}; namespaces and processes are removed")
        return exit_code(stopped.number)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"settings": vars(asked) | {"json": None}, "found": found}, indent=2) + "\n")
    return 0


def _slowest(by_rank: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return the seconds of the slowest rank in each step, by name."""
    return {name: [max(each) for each in zip(*(rank[name] for rank in by_rank), strict=True)] for name in by_rank[0]}


def lines_of(link: str, found: Mapping[str, Any]) -> list[str]:
    """Return what is printed of one link: the choice beside the best candidate, and all candidates."""
    seconds, once = found["seconds"], found["once"]
    ours = seconds[AUTO]
    medians = {name: statistics.median(times) for name, times in seconds.items() if name != AUTO}
    best = min(medians, key=lambda name: medians[name])
    ratios = [one / other for one, other in zip(ours, seconds[best], strict=True)]
    low, high = quartiles(ratios)
    ratio = statistics.median(ratios)
    verdict = "reached" if ratio <= BAR else "missed"
    lines = [
        f"{link}: auto has chosen {found['chosen']} in {found['choosing_s']:.1f} s, {bytes_text(found['sent_bytes'])} "
        f"sent a rank; its step takes {ratio:.2f} times that of {best} (quartiles {low:.2f} .. {high:.2f}; at most "
        f"{BAR}: {verdict})"
    ]
    for name in once:
        planned = found["step_s"].get(name)
        text = f"{medians[name] / medians[best]:.2f}" if name in medians else f"{min(once[name]) / medians[best]:.1f}"
        beside = "" if planned is None else f"; when it was chosen, {planned / medians[best]:.2f}"
        lines.append(f"    {name}: {text} times {best}{beside}")
    return lines


def _whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdigit() or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(f"{text} must be a whole number in {minimum} .. {maximum}")
        return int(text)

    return read


def _link(text: str) -> str:
    return text if text == UNSHAPED else a_bandwidth(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
