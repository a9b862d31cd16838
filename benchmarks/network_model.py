"""Compares the network model with the monograph's printed numbers, and times the simulation of a large round.

    python benchmarks/network_model.py

Prints Markdown. Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020: sections 1.3, 4.1, 5.2. All
times are in the monograph's units. Every printed number is also a test, in tests/network, tests/gossip and
tests/protocol/test_async_timing.py.
"""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from laconic.gossip.graphs import GRAPHS
from laconic.gossip.mixing import Mixing
from laconic.network import PATTERNS, Link, Network, closed_form_s, makespan_ns
from laconic.protocol.async_timing import AsyncServer, async_period_s, sync_iteration_s
from laconic.report.timeline.named import example_1_3_1

MB = 10**6
UNIT_NS = 10**9
LINKS = ((1.5, 5.0), (1.0, 0.1), (0.1, 8.0))  # latency and transfer of the full vector
WORKER_COUNTS = (2, 3, 4, 8, 16)
TRACES = ((1.0, 2.0, (4,)), (1.0, 2.0, (4, 4, 4)), (1.0, 2.0, (4, 4, 20)), (1.5, 5.0, (10,) * 4))
LARGE = """
import sys, time
from laconic.network import Link, Network, ring, simulate
start, busy = time.perf_counter(), time.process_time()
schedule = ring(1024, 45_000_000)
simulate(schedule, Network(1024, Link(bytes_per_s=125e6, latency_s=1e-3)))
print(len(schedule), time.perf_counter() - start, time.process_time() - busy)
"""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def table(header: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    say("| " + " | ".join(header) + " |")
    say("|---" * len(header) + "|")
    for row in rows:
        say("| " + " | ".join(str(cell) for cell in row) + " |")
    say("")


def simulated(name: str, n_workers: int, latency: float, transfer: float) -> float:
    """Return the simulated time of one round, in units."""
    n_bytes = 144 * MB  # divisible by all of WORKER_COUNTS
    pattern = PATTERNS[name]
    network = Network(n_workers + pattern.has_server, Link(bytes_per_s=n_bytes / transfer, latency_s=latency))
    return makespan_ns(pattern.message_schedule(n_workers, n_bytes), network) / UNIT_NS


def pattern_rows() -> Iterator[Sequence[object]]:
    for latency, transfer in LINKS:
        for n in WORKER_COUNTS:
            cells: list[object] = []
            for name in PATTERNS:
                if name == "gossip-ring" and n < 3:
                    cells.append("-")
                    continue
                found, exact = simulated(name, n, latency, transfer), closed_form_s(name, n, latency, transfer)
                cells.append(f"{found:.6g}" if math.isclose(found, exact, abs_tol=1e-8) else f"{found} (!) {exact}")
            yield (latency, transfer, n, *cells)


def example_rows() -> Iterator[Sequence[object]]:
    for third, reading in ((0, "third message to M1 (prose, figure)"), (1, "third message to M2 (table)")):
        spans = [
            makespan_ns(example_1_3_1(size, third), Network(3, Link(bytes_per_s=2e5, latency_s=1.5))) / UNIT_NS - 5
            for size in (MB, MB // 2)
        ]
        yield (reading, *(f"{span:g}" for span in spans))


def trace_rows() -> Iterator[Sequence[object]]:
    for latency, transfer, compute in TRACES:
        n = len(compute)
        server = AsyncServer(
            Network(n + 1, Link(bytes_per_s=MB / transfer, latency_s=latency)),
            n,
            compute_ns=lambda worker, step, compute=compute: compute[worker] * UNIT_NS,
            download_bytes=lambda worker: MB,
            upload_bytes=lambda worker: MB,
        )
        updates = server.run(12)
        times = ", ".join(f"{update.time_ns / UNIT_NS:g}" for update in updates)
        staleness = ", ".join(str(update.staleness) for update in updates)
        equal = len(set(compute)) == 1
        period = f"{async_period_s(n, latency, transfer, compute[0]):g}" if equal else "-"
        sync = f"{sync_iteration_s(n, latency, transfer, max(compute)):g}"
        yield (latency, transfer, ", ".join(map(str, compute)), times, staleness, period, sync)


def ring_rows() -> Iterator[Sequence[object]]:
    for n in (3, 4, 5, 8, 10, 16, 32, 64):
        exact = abs(1 + 2 * math.cos(2 * math.pi / n)) / 3 if n > 3 else 0.0
        rho = Mixing.from_text("ring", n).rho
        yield (n, f"{rho:.6f}", f"{exact:.6f}", f"{1 - 4 * math.pi**2 / (3 * n * n):.6f}" if n >= 16 else "-")


def gap_rows() -> Iterator[Sequence[object]]:
    for text in GRAPHS:
        yield (text, *(f"{Mixing.over_cycle(text, n).spectral_gap:.4f}" for n in (4, 8, 16, 64)))


def large_round() -> Iterator[Sequence[object]]:
    """Yield the times to build and simulate in a new process, without machine code on disk and with it."""
    with tempfile.TemporaryDirectory() as cache:
        for what in ("the first ever: compiles", "a later one", "a later one"):
            environment = os.environ | {"NUMBA_CACHE_DIR": cache}
            ended = subprocess.run(
                [sys.executable, "-c", LARGE], capture_output=True, text=True, check=True, env=environment
            )
            n_messages, seconds, busy = ended.stdout.split()
            yield what, f"{int(n_messages):,}", f"{float(seconds):.1f} s", f"{float(busy):.1f} s"


def main() -> None:
    say("## One round of five schedules\n")
    say("Latency l, transfer t of the full vector. Each time is the event simulation's, equal to the closed form's.\n")
    table(("l", "t", "workers", *PATTERNS), pattern_rows())
    say("## Example 1.3.1\n")
    table(("reading", "1 MB", "0.5 MB"), example_rows())
    say("## Asynchronous server: twelve updates\n")
    header = ("l", "t", "compute", "times of the updates", "staleness", "period (closed form)", "synchronous round")
    table(header, trace_rows())
    say("## Ring: rho, the part of a disagreement that a round leaves\n")
    table(("workers", "computed", "(1 + 2 cos(2 pi / N)) / 3", "1 - 4 pi^2 / (3 N^2)"), ring_rows())
    say("## Spectral gaps, 1 - rho\n")
    table(("graph", "4 workers", "8", "16", "64"), gap_rows())
    say("## A ring round of 1,024 workers\n")
    table(("process", "messages", "to build and simulate", "of the processor"), large_round())


if __name__ == "__main__":
    main()
