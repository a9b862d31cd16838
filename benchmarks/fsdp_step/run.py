"""Times steps of methods for sharded models beside the mean that FSDP takes between nodes: two nodes of two processes.

    python benchmarks/fsdp_step/run.py --bandwidth 100Mbit

Each node is a network namespace, whose link is shaped; within it nothing is. Without `--bandwidth` no link is. It needs
Linux, root and iproute2; without them it prints so and ends.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "real_network"))

from arguments import a_bandwidth
from bed import UNDO_S, Bed, why_not
from fsdp_rank import HSDP, FsdpRank
from ranks import ranks_in
from rich.console import Console

from laconic.bench.measure import quartiles
from laconic.lab.processes.stopping import Stopped, end_at_once, exit_code, stopped_by_signals, stopped_line
from laconic.units import bandwidth

N_NODES, PER_NODE = 2, 2


def main(arguments: Sequence[str]) -> int:
    """Run the bench and return the exit code, which is 0 also if the bench cannot run here."""
    parser = argparse.ArgumentParser(description="Time methods for sharded models beside FSDP's own mean.")
    parser.add_argument("--methods", nargs="+", default=["sgd", "signsgd-mv", "ec-sgd", "compskip"])
    parser.add_argument("--bandwidth", type=a_bandwidth, default=None, help="bandwidth of every node's link")
    parser.add_argument("--width", type=int, default=1024, help="of each layer")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--turns", type=int, default=15, help="steps of each model, in turns")
    asked = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if refused := why_not():
        console.print(f"skipped: {refused}")
        return 0
    try:
        with (
            stopped_by_signals(end_at_once, unwind_s=UNDO_S),
            Bed(N_NODES) as bed,
            ranks_in(bed, FsdpRank, each=PER_NODE) as ranks,
        ):
            sizes = {"width": asked.width, "n_layers": asked.layers}
            d = ranks.call("set_up", methods=asked.methods, nodes=N_NODES, **sizes)[0]
            if asked.bandwidth is not None:
                bed.shape((8 * bandwidth(asked.bandwidth),) * 2)
            by_rank = ranks.call("measure", turns=asked.turns)
            bed.shape(None)
    except Stopped as stopped:
        console.print(f"{stopped_line(stopped.number)}; namespaces and processes are removed")
        return exit_code(stopped.number)
    _show(by_rank, f"{d:,} parameters, links of {asked.bandwidth or 'no shape'}", console)
    return 0


def _show(by_rank: Sequence[dict[str, list[float]]], what: str, console: Console) -> None:
    slowest = {name: [max(each) for each in zip(*(rank[name] for rank in by_rank), strict=True)] for name in by_rank[0]}
    base_s = slowest.pop(HSDP)
    console.print(f"{what}: {HSDP} takes {1 / statistics.median(base_s):.2f} steps a second")
    for name, taken_s in slowest.items():
        ratios = [one / other for one, other in zip(base_s, taken_s, strict=True)]
        low, high = quartiles(ratios)
        console.print(
            f"{name}: {1 / statistics.median(taken_s):.2f} steps a second, {statistics.median(ratios):.2f} times as "
            f"many (quartiles {low:.2f} .. {high:.2f})"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
