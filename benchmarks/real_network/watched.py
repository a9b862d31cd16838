"""What `laconic.traffic.watch` counts of DistributedDataParallel beside the counters of interfaces, and what it costs.

python benchmarks/real_network/watched.py --workers 4 --steps 50
"""

import argparse
import statistics
import sys

from bed import Bed, why_not
from ranks import ranks_in
from rich.console import Console
from watched_rank import WatchedRank

HEADER_BYTES = 14 + 20 + 32  # Ethernet, IPv4, TCP with its time stamps


def main(arguments: list[str]) -> int:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--turns", type=int, default=30)
    asked = parser.parse_args(arguments)
    if reason := why_not():
        Console(stderr=True).print(reason)
        return 2
    with Bed(asked.workers) as bed, ranks_in(bed, WatchedRank) as ranks:
        ranks.call("steps", n=3)  # DistributedDataParallel makes its buckets anew after the first
        before = sum(bed.sent_bytes()), sum(bed.sent_packets())
        found = ranks.call("steps", n=asked.steps)
        after = sum(bed.sent_bytes()), sum(bed.sent_packets())
        times = ranks.call("costs", n_turns=asked.turns)[0]
    payload = after[0] - before[0] - HEADER_BYTES * (after[1] - before[1])
    counted = sum(one["sent_bytes"] for one in found)
    ratios = sorted(seen / plain for seen, plain in zip(times["watched_s"], times["plain_s"], strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    console = Console(soft_wrap=True, highlight=False)
    console.print(found[0]["table"])
    console.print(f"{asked.workers} ranks, {asked.steps} steps: watch counts {counted:,.0f} sent bytes, the interfaces")
    console.print(f"{payload:,} less headers: {100 * (counted / payload - 1):+.3f} %")
    console.print(f"a step with watch over one without: {middle:.4f} ({low:.4f} .. {high:.4f}), {asked.turns} turns")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
