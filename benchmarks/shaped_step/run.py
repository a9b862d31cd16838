"""Times sign methods and SSGD-MV with given gradients beside DistributedDataParallel on shaped links.

    python benchmarks/shaped_step/run.py --json shaped_step.json

It needs Linux, root and iproute2; without them it prints so and ends. README.md explains the measurements.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "real_network"))

from arguments import a_bandwidth, a_file
from bed import UNDO_S, Bed, why_not
from ranks import ranks_in
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from laconic.bench.measure import Measurement, quartiles, result_of
from laconic.bench.step import in_turns, without_computing
from laconic.bench.step_rank import BenchRank
from laconic.contract import ALGORITHMS
from laconic.hyperparameters import near_misses
from laconic.lab.processes.ranks import Ranks
from laconic.lab.processes.stopping import Stopped, end_at_once, exit_code, stopped_by_signals, stopped_line
from laconic.protocol.layout import LAYOUTS
from laconic.units import bandwidth, bytes_text

RESNET18 = 11_173_962
METHODS = ("signsgd-mv", "dropsign", "compskip", "ssgd-mv")
SIGN_METHODS = METHODS[:3]
HOOKS = ("ddp", "ddp-fp16")
# The speed-up that a sign method must reach over plain DDP and over its fp16 hook, by bandwidth in bits per second.
BARS = {1e9: {"ddp": 5.0, "ddp-fp16": 3.0}, 1e8: {"ddp": 25.0, "ddp-fp16": 14.0}}
ERROR_FEEDBACK = ("ec-sgd", "dist-ef")
# The same of each method that sends signs with scales in both directions, on the fastest layout that was measured.
ERROR_FEEDBACK_BARS = {1e9: {"ddp": 6.0}, 1e8: {"ddp": 20.0}}

_WIDTH = 88  # columns of the tables


def main(arguments: Sequence[str]) -> int:
    """Run the bench and return the exit code, which is 0 also if the bench cannot run here."""
    asked = _parsed(arguments)
    console = Console(width=max(Console().width, _WIDTH))
    refused = why_not()
    if refused:
        console.print(f"skipped: {refused}", highlight=False, markup=False, soft_wrap=True)
        return 0
    rows: list[Measurement] = []
    try:
        with (
            stopped_by_signals(end_at_once, unwind_s=UNDO_S),
            Bed(asked.workers) as bed,
            ranks_in(bed, BenchRank) as ranks,
        ):
            ranks.call("set_up", d=asked.parameters)
            for contender in (*HOOKS, *asked.methods):
                name, _, layout = contender.partition(":")
                ranks.call("add", name=name, layout=layout or "auto")
            for bandwidth_text in asked.bandwidths:
                console.print(f"{asked.workers} processes at {bandwidth_text}", highlight=False)
                bed.shape((8 * bandwidth(bandwidth_text),) * 2)
                rows += _rows_at(ranks, bandwidth_text, asked)
            bed.shape(None)
    except Stopped as stopped:
        console.print(f"{stopped_line(stopped.number)}; namespaces and processes are removed")
        return exit_code(stopped.number)
    for bandwidth_text in asked.bandwidths:
        console.print(_table([row for row in rows if row.name["rate"] == bandwidth_text], bandwidth_text, asked))
        for line in _verdicts([row for row in rows if row.name["rate"] == bandwidth_text], bandwidth_text):
            console.print(line, highlight=False)
    settings = {
        "workers": asked.workers, "parameters": asked.parameters, "rates": asked.bandwidths,
        "repeats": asked.repeats,
        "methods": list(asked.methods),
    }  # fmt: skip
    if asked.json is not None:
        asked.json.write_text(json.dumps(result_of("shaped step", settings, rows), indent=2) + "\n")
        console.print(f"wrote {asked.json}", highlight=False)
    return 0


def _rows_at(ranks: Ranks, bandwidth_text: str, asked: argparse.Namespace) -> Iterator[Measurement]:
    """Yield a row for each contender at one bandwidth, measured in turns."""
    names = ["all-reduce", *(name for hook in HOOKS for name in (hook, f"{hook} no_sync")), *asked.methods]
    seconds, phases = in_turns(ranks, names, asked.repeats, limit_s=asked.seconds)
    alone = {hook: without_computing(seconds, hook) for hook in HOOKS}
    shown = seconds | {f"{hook} - no_sync": taken for hook, taken in alone.items()}
    for name, taken in shown.items():
        details: dict[str, Any] = {}
        if name in asked.methods:
            for hook in HOOKS:
                times = [peer / ours for peer, ours in zip(alone[hook], taken, strict=True)]
                details[f"times_faster_than_{hook}"] = statistics.median(times)
                details[f"times_faster_than_{hook}_quartiles"] = quartiles(times)
            sums = [rank[name] for rank in phases]
            details["phases"] = {key: statistics.fmean(rank[key] for rank in sums) / len(taken) for key in sums[0]}
        yield Measurement(name={"rate": bandwidth_text, "step": name}, unit="s", samples=tuple(taken), details=details)


def _table(rows: Sequence[Measurement], bandwidth_text: str, asked: argparse.Namespace) -> Table:
    table = Table(
        title=f"exchange and update, {asked.workers} processes at {bandwidth_text}, {asked.parameters:,} parameters",
        caption="x ddp, x fp16: speed-up over DDP without its computing (- no_sync), by turn. "
        "wire: bytes of a step in both directions. encode, wait, decode: of a step. Means over ranks; times are in ms",
        title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False,
    )  # fmt: skip
    table.add_column("step", no_wrap=True)
    for column in ("takes", "quartiles", "x ddp", "x fp16", "wire", "encode", "wait", "decode"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        low, high = row.quartiles
        cells = [f"{1e3 * row.median:.4g}", f"{1e3 * low:.4g} .. {1e3 * high:.4g}"]
        if "phases" in row.details:
            phases = row.details["phases"]
            cells += [f"{row.details[f'times_faster_than_{hook}']:.2f}" for hook in HOOKS]
            cells += [bytes_text(phases["bytes_up"] + phases["bytes_down"])]
            cells += [f"{1e3 * phases[phase]:.3g}" for phase in ("encode", "wait", "decode")]
        table.add_row(str(row.name["step"]), *cells)
    return table


def _verdicts(rows: Sequence[Measurement], bandwidth_text: str) -> Iterator[str]:
    """Yield the speed-ups of the best sign method and of each with error feedback, and whether they reach the bars."""
    bits_per_s = 8 * bandwidth(bandwidth_text)
    groups = [(SIGN_METHODS, BARS), *(((name,), ERROR_FEEDBACK_BARS) for name in ERROR_FEEDBACK)]
    for names, bars in groups:
        ours = [row for row in rows if str(row.name["step"]).partition(":")[0] in names]
        if ours:
            yield _verdict(min(ours, key=lambda row: row.median), bandwidth_text, bars.get(bits_per_s, {}))


def _verdict(best: Measurement, bandwidth_text: str, bars: Mapping[str, float]) -> str:
    reached = {hook: best.details[f"times_faster_than_{hook}"] for hook in HOOKS}
    texts = [
        f"{reached[hook]:.2f} times faster than {hook}"
        + (
            f" (at least {bars[hook]:g}: {'reached' if reached[hook] >= bars[hook] else 'missed'})"
            if hook in bars
            else ""
        )
        for hook in HOOKS
    ]
    return f"{bandwidth_text}: {best.name['step']} is {' and '.join(texts)}"


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time steps on shaped links beside DistributedDataParallel.")
    parser.add_argument("--workers", type=_full("workers", 2, 32), default=4, help="number of processes, 2 to 32")
    parser.add_argument(
        "--parameters", type=_full("parameters", 1000, 10**9), default=RESNET18, help="number of parameters"
    )
    parser.add_argument(
        "--bandwidths", type=a_bandwidth, nargs="+", default=["1Gbit", "100Mbit"], help="bandwidth of every link"
    )
    parser.add_argument(
        "--methods",
        type=_method,
        nargs="+",
        default=list(METHODS),
        help="names that `laconic list` prints, also with a layout, as in ec-sgd:sharded",
    )
    parser.add_argument("--repeats", type=_full("repeats", 1, 1000), default=9, help="number of turns, at least 3")
    parser.add_argument("--seconds", type=_full("seconds", 1, 10**6), default=120, help="maximum seconds per bandwidth")
    parser.add_argument("--json", type=a_file, default=None, metavar="FILE", help="JSON file for all figures")
    return parser.parse_args(arguments)


def _full(what: str, minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdigit() or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(f"{what}: {text} must be a whole number in {minimum} .. {maximum}")
        return int(text)

    return read


def _method(text: str) -> str:
    name, _, layout = text.partition(":")
    if name not in ALGORITHMS:
        raise argparse.ArgumentTypeError(f"unknown method {name!r}{near_misses(name, sorted(ALGORITHMS))}")
    if layout not in ("", *LAYOUTS):
        raise argparse.ArgumentTypeError(f"unknown layout {layout!r}{near_misses(layout, LAYOUTS)}")
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
