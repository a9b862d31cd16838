"""A small comparison as `laconic compare` leaves it: four methods, two seeds, one run that failed and one not run."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laconic.lab.runs.files import write_record
from laconic.lab.runs.record import Record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings

NETWORKS = {"home": {"bandwidth": "10Mbit", "latency": "20ms", "compute": "30ms"}}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {}),
    "votes, 10 %": ("ssgd-mv", {"set": {"density": "0.1"}}),
    "compskip": ("compskip", {"set": {"c": "0.3", "server_c": "0.3"}, "lr": 0.01}),
    "asgd": ("asgd", {}),
}
COLUMNS = (
    "round", "epoch", "up_wire_bytes", "down_wire_bytes", "up_payload_bits", "up_paper_bits", "skips_up", "skips_down",
    "aborted", "train_loss", "staleness_max", "residual_norm", "vote_agreement",
)  # fmt: skip


def write_comparison(folder: Path, *, labels: Mapping[str, str] | None = None, seeds: int = 2, epochs: int = 2) -> Path:
    """Train and write; `labels` gives methods other names."""
    cells = []
    for method, (algorithm, options) in METHODS.items():
        label = (labels or {}).get(method, method)
        for seed in range(seeds):
            settings = RunSettings(
                algorithm=algorithm, epochs=epochs, batch_size=60, model="linear", seed=seed, **options
            )
            record = run_simulated(settings, lambda progress: None)
            where = f"cells/{method}/-/iid/seed-{seed}"
            write_record(folder / where, record)
            write_rounds(folder / where / "rounds.csv", record)
            cells.append(cell(where, label, algorithm, seed, state="finished"))
    cells.append(cell("cells/sgd/-/iid/seed-8", "sgd", "sgd", 8, state="failed", why="RuntimeError: no memory is left"))
    cells.append(cell("cells/sgd/-/iid/seed-9", "sgd", "sgd", 9, state="not run"))
    data = {
        "version": 1, "task": {"dataset": "digits", "model": "linear", "workers": 4}, "networks": NETWORKS,
        "target": None, "cells": cells, "command": "laconic compare 'a b.toml' --out runs/x",
        "versions": {"laconic": "0.1.0"}, "machine": {"cores": 2},
    }  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps(data))
    return folder


def cell(folder: str, label: str, algorithm: str, seed: int, **more: Any) -> dict[str, Any]:
    """What `comparison.json` says of one run."""
    return {
        "folder": folder, "label": label, "algorithm": algorithm, "seed": seed, "network": None, "partition": "iid",
        "why": None, "seconds": None, "peak_memory_bytes": None, **more,
    }  # fmt: skip


def write_rounds(path: Path, record: Record) -> None:
    """Write a `rounds.csv` whose rounds add up to the run's totals, each epoch's evenly."""
    before, lines = [0, 0, 0, 0, 0], []
    for row in record.rows:
        totals = [row.round, row.up_wire_bytes, row.down_wire_bytes, row.skips_up, row.skips_down]
        n, *amounts = (now - then for now, then in zip(totals, before, strict=True))
        for number in range(n):
            up, down, skips_up, skips_down = (amount // n + (number < amount % n) for amount in amounts)
            round_, epoch = before[0] + number, row.epoch - 1 + (number + 1) / n
            votes = 0.5 + 0.1 / (1 + round_) if record.settings.algorithm == "ssgd-mv" else ""
            stale = round_ % 3 if record.settings.method.is_asynchronous else ""
            norm = 1 + round_ if record.settings.algorithm == "compskip" else ""
            lines.append((round_, epoch, up, down, "", "", skips_up, skips_down, 0, row.train_loss, stale, norm, votes))
        before = totals
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(lines)
