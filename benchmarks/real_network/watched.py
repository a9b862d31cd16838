"""What `laconic.traffic.watch` counts beside the counters of interfaces, and what it costs.

python benchmarks/real_network/watched.py --workers 4 --steps 50

Compared are steps of DistributedDataParallel, and each kind of collective call by itself. `--in-order`: TCP sends
nothing again that was not lost, however long a rank waits for a processor.
"""

import argparse
import statistics
import sys

from bed import Bed, why_not
from ranks import ranks_in
from rich.console import Console
from watched_rank import COLLECTIVES, WatchedRank

from laconic.lab.processes.ranks import Ranks

HEADER_BYTES = 14 + 20 + 32  # Ethernet, IPv4, TCP with its time stamps


def main(arguments: list[str]) -> int:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--in-order", action="store_true")
    asked = parser.parse_args(arguments)
    if reason := why_not():
        Console(stderr=True).print(reason)
        return 2
    console = Console(soft_wrap=True, highlight=False)
    with Bed(asked.workers) as bed:
        if asked.in_order:
            bed.keep_order()
        times = _all_compared(bed, asked.steps, asked.turns, console)
    ratios = sorted(seen / plain for seen, plain in zip(times["watched_s"], times["plain_s"], strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    console.print(f"a step with watch over one without: {middle:.4f} ({low:.4f} .. {high:.4f}), {asked.turns} turns")
    return 0


def _all_compared(bed: Bed, n_steps: int, n_turns: int, console: Console) -> dict[str, list[float]]:
    """Print a line about each kind; return the seconds of steps with and without watching."""
    console.print(f"{len(bed.names)} ranks, {n_steps} of each; watch over what the interfaces sent, over that less")
    console.print("headers, and over what TCP sent once; segments sent again; headers of a packet and a call:")
    with ranks_in(bed, WatchedRank) as ranks:
        ranks.call("steps", n=3)  # DistributedDataParallel makes its buckets anew after the first
        for name in ("steps", *COLLECTIVES):
            console.print(_compared(bed, ranks, name, n_steps))
        times: dict[str, list[float]] = ranks.call("costs", n_turns=n_turns)[0]
    return times


def _compared(bed: Bed, ranks: Ranks, name: str, n: int) -> str:
    """Return a line about `n` steps, or calls of a kind: all ranks' bytes together."""
    method = "steps" if name == "steps" else "collective"
    more = {} if name == "steps" else {"name": name}
    ranks.call(method, n=1, **more)
    before = _sums(bed)
    found = ranks.call(method, n=n, **more)
    n_bytes, n_packets, n_again, by_tcp, by_tcp_again = (
        after - earlier for after, earlier in zip(_sums(bed), before, strict=True)
    )
    counted, calls = sum(one["sent_bytes"] for one in found), sum(one["calls"] for one in found)
    once = by_tcp - by_tcp_again
    shares = (f"{100 * (counted / sent - 1):+.3f} %" for sent in (n_bytes, n_bytes - HEADER_BYTES * n_packets, once))
    return (
        f"{name:14} {counted:>15,.0f} B  {'  '.join(shares)}  {n_again:4} again  "
        f"{(n_bytes - by_tcp) / n_packets:.1f} B a packet, {(once - counted) / calls:,.0f} B a call and rank"
    )


def _sums(bed: Bed) -> tuple[int, int, int, int, int]:
    return (sum(bed.sent_bytes()), sum(bed.sent_packets()), sum(bed.sent_again()), *bed.sent_by_tcp())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
