"""Times a step of methods over two nodes of two processes: all four as workers, and the nodes as two workers.

    python benchmarks/two_levels/run.py --json two_levels.json

Each node is a network namespace, whose link is shaped; within it nothing is. It needs Linux, root and iproute2; without
them it prints so and ends. README.md explains the measurements.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "real_network"))

from arguments import a_bandwidth, a_file
from bed import UNDO_S, Bed, why_not
from nodes_rank import FLAT, TWO_LEVELS, NodesRank
from ranks import ranks_in
from rich.console import Console

from laconic.bench.measure import quartiles
from laconic.lab.processes.ranks import Ranks
from laconic.lab.processes.stopping import Stopped, end_at_once, exit_code, stopped_by_signals, stopped_line
from laconic.units import bandwidth

N_NODES = 2
LAYOUTS = FLAT, TWO_LEVELS
RESNET18 = 11_173_962
METHODS = {
    "sgd": ("sgd", "auto"),
    "csgd": ("csgd", "auto"),
    "ec-sgd": ("ec-sgd", "auto"),
    "signsgd-mv": ("signsgd-mv", "auto"),
    "signsgd-mv-to-all": ("signsgd-mv", "allgather"),
    "compskip": ("compskip", "auto"),
}
"""By name on the command line, the method and its layout."""


def main(arguments: Sequence[str]) -> int:
    """Run the bench and return the exit code, which is 0 also if the bench cannot run here."""
    parser = argparse.ArgumentParser(description="Time two levels beside the flat layout of the same method.")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--bandwidth", type=a_bandwidth, default="100Mbit", help="bandwidth of every node's link")
    parser.add_argument("--per-node", type=int, default=2, help="processes of a node")
    parser.add_argument("--parameters", type=int, default=RESNET18, help="number of parameters")
    parser.add_argument("--turns", type=int, default=7, help="steps of each layout, in turns")
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
            Bed(N_NODES) as bed,
            ranks_in(bed, NodesRank, each=asked.per_node) as ranks,
        ):
            for name in asked.methods:
                method, layout = METHODS[name]
                ranks.call("set_up", method=method, layout=layout, d=asked.parameters, nodes=N_NODES)
                bed.shape((8 * bandwidth(asked.bandwidth),) * 2)
                found[name] = _slowest(ranks.call("measure", turns=asked.turns))
                found[name]["link_bytes"] = {each: _link_bytes(bed, ranks, each, asked.turns) for each in LAYOUTS}
                bed.shape(None)
                for line in _lines(name, found[name], bandwidth(asked.bandwidth)):
                    console.print(line, highlight=False, soft_wrap=True)
    except Stopped as stopped:
        console.print(f"{stopped_line(stopped.number)}; namespaces and processes are removed")
        return exit_code(stopped.number)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"settings": vars(asked) | {"json": None}, "found": found}, indent=2) + "\n")
    return 0


def _slowest(by_rank: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the seconds of the slowest rank in each step, those of processors of all ranks, and the layouts."""
    times, used = (
        {name: [of(each) for each in zip(*(rank[what][name] for rank in by_rank), strict=True)] for name in LAYOUTS}
        for what, of in (("seconds", max), ("processor_s", sum))
    )
    return {"seconds": times, "processor_s": used, "layouts": by_rank[0]["layouts"]}


def _link_bytes(bed: Bed, ranks: Ranks, name: str, turns: int) -> float:
    """Return the bytes of a step on the link that sends more, with the headers of all layers."""
    before = bed.sent_bytes()
    ranks.call("repeat", name=name, turns=turns)
    return max(after - one for one, after in zip(before, bed.sent_bytes(), strict=True)) / turns


def _lines(name: str, found: dict[str, Any], bytes_per_s: float) -> list[str]:
    flat, ours = found["seconds"][FLAT], found["seconds"][TWO_LEVELS]
    ratios = [one / other for one, other in zip(flat, ours, strict=True)]
    low, high = quartiles(ratios)
    layouts = " and ".join(dict.fromkeys(found["layouts"].values()))
    most = found["link_bytes"][FLAT] / found["link_bytes"][TWO_LEVELS]
    return [
        f"{name} ({layouts}): a step over two levels is {statistics.median(ratios):.2f} times faster than flat "
        f"(quartiles {low:.2f} .. {high:.2f}), and would be {most:.2f} times by the bytes on the link",
        *(
            f"  {each}: {1e3 * statistics.median(found['seconds'][each]):.0f} ms; of the link "
            f"{1e3 * found['link_bytes'][each] / bytes_per_s:.0f} ms, for {found['link_bytes'][each] / 1e6:.2f} MB; of "
            f"processors {1e3 * statistics.median(found['processor_s'][each]):.0f} ms, in all ranks"
            for each in LAYOUTS
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
