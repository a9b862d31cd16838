"""Times steps of a model in DistributedDataParallel with an attached method beside the same method in the optimizer.

    python benchmarks/ddp_overlap/run.py --json ddp_overlap.json

Every process has a network namespace of its own, with a shaped link. It needs Linux, root and iproute2; without them it
prints so and ends. README.md explains the measurements.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "real_network"))

from arguments import a_bandwidth, a_file
from bed import UNDO_S, Bed, why_not
from overlap_rank import ALONE, ATTACHED, OPTIMIZER, PLAIN, OverlapRank
from overlap_trace import saved
from ranks import ranks_in
from rich.console import Console

from laconic.bench.measure import quartiles
from laconic.lab.processes.stopping import Stopped, end_at_once, exit_code, stopped_by_signals, stopped_line
from laconic.units import bandwidth

METHODS = ["signsgd-mv", "dropsign", "compskip", "ec-sgd", "sgd"]
_TRACED_STEPS = 6  # of which the last is in the trace


def main(arguments: Sequence[str]) -> int:
    """Run the bench and return the exit code, which is 0 also if the bench cannot run here."""
    parser = argparse.ArgumentParser(description="Time attached methods beside the optimizer on shaped links.")
    parser.add_argument("--method", default="signsgd-mv", choices=METHODS)
    parser.add_argument("--layout", default="auto", choices=["auto", "rank0", "sharded", "allgather"])
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("--bandwidth", type=a_bandwidth, default="1Gbit", help="bandwidth of every link")
    parser.add_argument("--batch", type=int, default=16, help="inputs of a mini-batch")
    parser.add_argument("--turns", type=int, default=15, help="steps of each contender")
    parser.add_argument("--bucket-mb", type=float, default=25.0, help="bucket_cap_mb of DistributedDataParallel")
    parser.add_argument("--plain", action="store_true", help="time plain DistributedDataParallel too")
    parser.add_argument("--trace", type=a_file, default=None, metavar="FILE", help="SVG of a step, by torch's profiler")
    parser.add_argument("--json", type=a_file, default=None, metavar="FILE", help="JSON file for all figures")
    asked = parser.parse_args(arguments)
    console = Console()
    refused = why_not()
    if refused:
        console.print(f"skipped: {refused}", highlight=False, markup=False, soft_wrap=True)
        return 0
    try:
        with (
            stopped_by_signals(end_at_once, unwind_s=UNDO_S),
            Bed(asked.workers) as bed,
            ranks_in(bed, OverlapRank) as ranks,
        ):
            slices = ranks.call(
                "set_up", method=asked.method, layout=asked.layout, batch=asked.batch, plain=asked.plain,
                bucket_mb=asked.bucket_mb,
            )[0]  # fmt: skip
            bed.shape((8 * bandwidth(asked.bandwidth),) * 2)
            by_rank = ranks.call("measure", turns=asked.turns)
            traced = None if asked.trace is None else ranks.call("trace", steps=_TRACED_STEPS)
            bed.shape(None)
    except Stopped as stopped:
        console.print(f"{stopped_line(stopped.number)}; namespaces and processes are removed")
        return exit_code(stopped.number)
    seconds, used = (
        {
            name: [max(each[place] for each in step) for step in zip(*(rank[name] for rank in by_rank), strict=True)]
            for name in by_rank[0]
        }
        for place in (0, 1)
    )
    for line in [*_lines(seconds, slices, asked), *_lines_of_processor(seconds, used)]:
        console.print(line, highlight=False, soft_wrap=True)
    if traced is not None:
        for line in saved(traced, asked.trace, _title(slices, asked)):
            console.print(line, highlight=False, soft_wrap=True)
    if asked.json is not None:
        asked.json.write_text(
            json.dumps(
                {"settings": vars(asked) | {"json": None, "trace": None}, "seconds": seconds, "processor_s": used},
                indent=2,
            )
            + "\n"
        )
    return 0


def _title(slices: int, asked: argparse.Namespace) -> str:
    layout = "" if asked.layout == "auto" else f" ({asked.layout})"
    ranks = f"{asked.workers} processes at {asked.bandwidth}"
    return f"{asked.method}{layout}, {ranks}, mini-batches of {asked.batch}, {slices} slices"


def _lines(seconds: dict[str, list[float]], slices: int, asked: argparse.Namespace) -> list[str]:
    """Return what was found, each ratio as the median over the turns with its quartiles."""
    turns = [dict(zip(seconds, times, strict=True)) for times in zip(*seconds.values(), strict=True)]
    exchange = [each[OPTIMIZER] - each[ALONE] for each in turns]
    visible = [each[ATTACHED] - each[ALONE] for each in turns]
    ratios = {
        "a step through the optimizer over an attached one": [each[OPTIMIZER] / each[ATTACHED] for each in turns],
        "the part of the exchange that is hidden": [
            1 - one / other for one, other in zip(visible, exchange, strict=True)
        ],
    }
    if PLAIN in seconds:
        ratios["a step of plain DistributedDataParallel over an attached one"] = [
            each[PLAIN] / each[ATTACHED] for each in turns
        ]
    header = _title(slices, asked)
    medians = ", ".join(f"{name} {1e3 * statistics.median(times):.0f} ms" for name, times in seconds.items())
    rows = [
        f"{what}: {statistics.median(of):.2f} ({quartiles(of)[0]:.2f} .. {quartiles(of)[1]:.2f})"
        for what, of in ratios.items()
    ]
    return [header, medians, *rows]


def _lines_of_processor(seconds: dict[str, list[float]], used: dict[str, list[float]]) -> list[str]:
    """Return what the processor was needed for, and what a step could not be faster than with a core for each rank."""
    medians = {name: statistics.median(of) for name, of in used.items()}
    listed = ", ".join(f"{name} {1e3 * of:.0f} ms" for name, of in medians.items())
    most = statistics.median(seconds[OPTIMIZER]) / medians[ATTACHED]
    return [
        f"processor time of a rank, in all of its threads: {listed}",
        f"on one core for each rank an attached step that waits for nothing is {most:.2f} times faster",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
