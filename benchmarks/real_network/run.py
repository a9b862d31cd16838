"""Compares `laconic plan` with real processes on shaped links, and interface counters with the wire meter.

    python benchmarks/real_network/run.py --json real_network.json

It needs Linux, root and iproute2; without them it prints so and ends. README.md explains the measurements.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from arguments import a_file, a_link
from bed import UNDO_S, Bed, why_not
from rank import RealNetworkRank
from ranks import ranks_in
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from laconic.contract import ALGORITHMS, ModelSpec
from laconic.hyperparameters import from_text
from laconic.lab.processes.ranks import Ranks
from laconic.lab.processes.stopping import Stopped, end_at_once, exit_code, stopped_by_signals, stopped_line
from laconic.lab.provenance import machine, versions
from laconic.network import Link
from laconic.planning.candidate import Candidate
from laconic.planning.plan import candidates_of
from laconic.planning.query import Query
from laconic.units import bandwidth, bytes_text, seconds_text

RESNET18 = 11_173_962
SMALL = 1_000_000  # parameters; a round of dense gradients takes seconds at 100 Mbit/s
_TCP_SHARE = 1448 / 1514  # payload of a full packet after Ethernet, IP and TCP headers
_N_BARRIERS = 20
_N_SMALL = 30
_WIDTH = 130  # columns of the widest table

# Seconds that 100 rounds of ten workers spent on communication: Deng et al., SASG, Table III, the full-size ResNet-18.
PRINTED_S = {"sgd": 327.45, "sparse": 15.94, "sasg": 13.09}


@dataclass(frozen=True)
class Case:
    """A method on a layout."""

    method: str
    layout: str
    rounds: int
    """The number of rounds that are timed."""
    is_dense: bool = True
    """Whether uploads or downloads are dense vectors."""
    settings: dict[str, str] = field(default_factory=dict)
    """Hyper-parameters."""

    def d(self, bits_per_s: float) -> int:
        """Return the number of parameters: fewer if dense vectors would take minutes on a slow link."""
        return SMALL if self.is_dense and bits_per_s < 1e9 else RESNET18


CASES = (
    Case("sgd", "rank0", 3),
    Case("sgd", "sharded", 5),
    Case("sgd", "allreduce", 5),
    Case("compskip", "rank0", 16, is_dense=False),  # the rounds of the plan, with the same Bernoulli draws
    Case("sparse", "rank0", 5),
    Case("ssgd-mv-ad", "rank0", 7, is_dense=False),
)
LAZY = Case("sasg", "rank0", 5)


def main(arguments: Sequence[str]) -> int:
    """Run the bench and return the exit code, which is 0 also if the bench cannot run here."""
    asked = _parsed(arguments)
    console = Console(width=max(Console().width, _WIDTH))
    refused = why_not()
    if refused:
        console.print(f"skipped: {refused}", highlight=False, markup=False, soft_wrap=True)
        return 0
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    try:
        with stopped_by_signals(end_at_once, unwind_s=UNDO_S):
            for n in asked.workers:
                with Bed(n) as bed, ranks_in(bed, RealNetworkRank) as ranks:
                    for row in _of_ranks(bed, ranks, n, asked.bandwidths, asked.methods, asked.rounds_factor):
                        rows.append(row)
                        console.print(_line(row), highlight=False)
    except Stopped as stopped:
        console.print(f"{stopped_line(stopped.number)}; namespaces and processes are removed")
        return exit_code(stopped.number)
    communication = _communication(rows)
    console.print(_prediction_table(rows))
    console.print(_within(rows), highlight=False)
    console.print(_communication_table(communication))
    details = {
        "cores": os.cpu_count(), "versions": versions(), "machine": machine(),
        "rows": rows, "communication_of_100_rounds": communication,
    }  # fmt: skip
    if asked.json is not None:
        asked.json.write_text(json.dumps(details, indent=2) + "\n")
        console.print(f"wrote {asked.json}", highlight=False)
    return 0


def _of_ranks(
    bed: Bed, ranks: Ranks, n: int, bandwidths: Sequence[str], methods: Sequence[str], factor: int
) -> Iterator[dict[str, Any]]:
    barrier_bytes, small_s = _barrier_bytes(bed, ranks), _small_s(ranks)
    for bandwidth_text in bandwidths:
        bits_per_s = _directions(bandwidth_text)
        cases = [*CASES, LAZY] if n == 10 and _is_gigabit(bandwidth_text) else CASES
        bed.shape(bits_per_s)
        facts = ranks.call("measure")[0]  # of the network, for all methods
        for case in cases:
            if methods and case.method not in methods:
                continue
            d = case.d(min(bits_per_s))
            bed.shape(None)
            ranks.call("set_up", method=case.method, settings=case.settings, d=d, layout=case.layout)
            bed.shape(bits_per_s)
            before = bed.sent_bytes()
            answers = ranks.call("rounds", n=case.rounds * factor)
            counted = sum(after - one for one, after in zip(before, bed.sent_bytes(), strict=True))
            yield _row(case, n, bandwidth_text, d, answers, counted, barrier_bytes, small_s, facts)
    bed.shape(None)


def _row(
    case: Case,
    n: int,
    bandwidth_text: str,
    d: int,
    answers: list[dict[str, Any]],
    counted: int,
    barrier_bytes: float,
    small_s: float,
    facts: dict[str, Any],
) -> dict[str, Any]:
    n_rounds = len(answers[0]["phases"])
    by_round = [
        {
            direction: max(answer["phases"][place].get(direction, 0.0) for answer in answers)
            for direction in ("up", "down")
        }
        for place in range(n_rounds)
    ]
    links_s = [sum(phases.values()) for phases in by_round]
    # The plan predicts the mean of rounds that skip at random. Else the median, which a busy machine disturbs less.
    middle = statistics.fmean if ALGORITHMS[case.method]().skips else statistics.median
    n_phases = _n_phases(case, d, n)
    metered = sum(sum(answer["wire_bytes"].values()) for answer in answers)
    crossed = counted - barrier_bytes * n_phases * n_rounds
    up, down = (bits / 8 * _TCP_SHARE for bits in _directions(bandwidth_text))
    link = Link(bytes_per_s=up, down_bytes_per_s=down, latency_s=small_s)
    planned = _planned(case, n, link, d)
    given_s, predicted_s = planned.step_s(link), planned.step_s(facts["link"], measured=facts["links"])
    measured_s = middle(links_s)
    return {
        "workers": n, "rate": bandwidth_text, "method": case.method, "layout": case.layout, "d": d, "rounds": n_rounds,
        "small_message_s": small_s, "facts": facts["links"].as_data(), "given_s": given_s, "predicted_s": predicted_s,
        "measured_s": measured_s,
        "off": measured_s / predicted_s - 1, "off_given": measured_s / given_s - 1,
        "fastest_s": min(links_s), "links_s": links_s, "up_s": [phases["up"] for phases in by_round],
        "down_s": [phases["down"] for phases in by_round],
        "wall_s": max(answer["wall_s"] for answer in answers) / n_rounds,
        "processor_s": sum(answer["process_s"] for answer in answers) / n_rounds,
        "seconds": [answer["seconds"] for answer in answers],
        "metered_bytes": metered, "counted_bytes": crossed, "counted_over_metered": crossed / metered,
        "barrier_bytes": barrier_bytes * n_phases * n_rounds,
    }  # fmt: skip


def _planned(case: Case, n: int, link: Link, d: int) -> Candidate:
    """Return what `laconic plan` plans for the case, without computing."""
    query = Query(spec=ModelSpec.of_sizes(d), n_workers=n, link=link)
    algorithm = from_text(ALGORITHMS[case.method], case.settings, case.method)
    found = candidates_of({case.method: algorithm}, query, measure=False, only=case.layout)
    (candidate,) = found
    return candidate


def _n_phases(case: Case, d: int, n: int) -> int:
    """Return the barriers of a round: one per direction of each exchange, and one per all-reduce."""
    exchanges = ALGORITHMS[case.method]().exchanges(ModelSpec.of_sizes(d), n)
    return len(exchanges) * (1 if case.layout == "allreduce" else 2)


def _barrier_bytes(bed: Bed, ranks: Ranks) -> float:
    """Return the bytes that all ranks send for one barrier."""
    ranks.call("barriers", n=1)
    before = sum(bed.sent_bytes())
    ranks.call("barriers", n=_N_BARRIERS)
    return (sum(bed.sent_bytes()) - before) / _N_BARRIERS


def _small_s(ranks: Ranks) -> float:
    """Return the median seconds of a small message in one direction."""
    times = ranks.call("small", n=_N_SMALL)[0]["there_and_back_s"]
    return float(statistics.median(times)) / 2


def _communication(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the link seconds of 100 rounds of ten workers at 1 Gbit/s, with rank 0 as the server."""
    found = []
    for row in rows:
        if row["workers"] == 10 and row["d"] == RESNET18 and row["layout"] == "rank0" and _is_gigabit(row["rate"]):
            up_s, down_s = (100 * statistics.median(row[direction]) for direction in ("up_s", "down_s"))
            found.append(
                {
                    "method": row["method"], "rounds": row["rounds"], "up_s": up_s, "down_s": down_s,
                    "both_s": up_s + down_s, "computing_s": 100 * row["wall_s"] - up_s - down_s,
                    "printed_s": PRINTED_S.get(row["method"]),
                }
            )  # fmt: skip
    dense = next((row["up_s"] for row in found if row["method"] == "sgd"), None)
    return [row | {"times_shorter_up": dense / row["up_s"] if dense else None} for row in found]


def _directions(text: str) -> tuple[float, float]:
    """Return the bits per second of upload and download, of a text such as 100Mbit or 20Mbit+100Mbit."""
    parts = [8 * bandwidth(part) for part in text.split("+")]
    return parts[0], parts[-1]


def _is_gigabit(bandwidth_text: str) -> bool:
    return _directions(bandwidth_text) == (1e9, 1e9)


def _within(rows: list[dict[str, Any]]) -> str:
    """Return in how many rows each plan is within a fifth of what was measured."""
    of_measured, of_given = (sum(abs(row[name]) <= 0.2 for row in rows) for name in ("off", "off_given"))
    return (
        f"within 20 % of measured: {of_measured} of {len(rows)} planned with the network as measured, {of_given} with "
        "its bandwidth and latency as given"
    )


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['workers']} workers, {row['rate']}, {row['method']} on {row['layout']}: "
        f"{seconds_text(row['measured_s'])}, planned {seconds_text(row['predicted_s'])}, by what is given "
        f"{seconds_text(row['given_s'])}"
    )


def _prediction_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title="a round on the links: planned and measured; bytes on the interfaces over the wire meter's",
        caption=(
            "given: planned by bandwidth and latency; planned: by the network as measured.\n"
            "total: seconds of a round with computing. cpu: processor seconds of all ranks in a round"
        ),
        title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False,
    )  # fmt: skip
    for column in ("n", "bandwidth", "method", "layout"):
        table.add_column(column, no_wrap=True)
    for column in ("d", "given", "off", "planned", "measured", "off", "total", "cpu", "metered", "counted"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["workers"]), row["rate"], row["method"], row["layout"], f"{row['d'] / 1e6:.3g}M",
            seconds_text(row["given_s"]), f"{row['off_given']:+.1%}", seconds_text(row["predicted_s"]),
            seconds_text(row["measured_s"]), f"{row['off']:+.1%}",
            seconds_text(row["wall_s"]), seconds_text(row["processor_s"]), bytes_text(row["metered_bytes"]),
            f"x {row['counted_over_metered']:.4f}",
        )  # fmt: skip
    return table


def _communication_table(found: list[dict[str, Any]]) -> Table:
    table = Table(
        title="100 rounds of ten workers at 1 Gbit/s, 11.17 million parameters, rank 0 serves",
        caption="seconds on the links, without computing. printed: Deng et al., Table III, uploads",
        title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False,
    )  # fmt: skip
    table.add_column("method", no_wrap=True)
    for column in ("timed rounds", "up", "x shorter", "down", "computing", "printed"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found:
        table.add_row(
            row["method"], str(row["rounds"]), f"{row['up_s']:.2f} s", f"{row['times_shorter_up'] or 0:.1f}",
            f"{row['down_s']:.2f} s", f"{row['computing_s']:.0f} s",
            "" if row["printed_s"] is None else f"{row['printed_s']} s",
        )  # fmt: skip
    return table


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare laconic plan with real processes on shaped links.")
    parser.add_argument(
        "--workers", type=_worker_count, nargs="+", default=[4, 10], help="numbers of ranks, 2 to 32 each"
    )
    parser.add_argument(
        "--bandwidths",
        type=a_link,
        nargs="+",
        default=["100Mbit", "1Gbit"],
        help="bandwidth of every link; 20Mbit+100Mbit is upload and download",
    )
    known = sorted({case.method for case in (*CASES, LAZY)})
    parser.add_argument("--methods", choices=known, nargs="+", default=[], help="methods to run, all by default")
    parser.add_argument("--rounds-factor", type=_factor, default=1, help="multiplies the number of timed rounds")
    parser.add_argument("--json", type=a_file, default=None, metavar="FILE", help="JSON file for all figures")
    return parser.parse_args(arguments)


def _worker_count(text: str) -> int:
    if not text.isdigit() or not 2 <= int(text) <= 32:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number in 2 .. 32")
    return int(text)


def _factor(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
