"""A small comparison as `laconic compare` leaves it: four methods, two seeds, one run that failed and one not run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laconic.lab.runs.files import RunFiles
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.run_so_far import RunProgress
from laconic.lab.runs.settings import RunSettings

NETWORKS = {"home": {"bandwidth": "10Mbit", "latency": "20ms", "compute": "30ms"}}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {"partition": "dirichlet"}),
    "votes, 10 %": ("ssgd-mv", {"set": {"density": "0.1"}}),
    "compskip": ("compskip", {"set": {"c": "0.3", "server_c": "0.3"}, "lr": 0.01}),
    "asgd": ("asgd", {}),
}


def write_comparison(folder: Path, *, labels: Mapping[str, str] | None = None, seeds: int = 2, epochs: int = 2) -> Path:
    """Train and write; `labels` gives methods other names."""
    cells = []
    for method, (algorithm, options) in METHODS.items():
        label = (labels or {}).get(method, method)
        for seed in range(seeds):
            settings = RunSettings(
                algorithm=algorithm, epochs=epochs, batch_size=60, model="linear", seed=seed, **options
            )
            where = f"cells/{method}/-/iid/seed-{seed}"
            train_into(folder / where, settings)
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


def train_into(folder: Path, settings: RunSettings) -> None:
    """Train, and write what `laconic run --out` writes."""
    files = RunFiles(folder, settings)
    files.begin()

    def listen(progress: RunProgress) -> None:
        if progress.row is not None:
            files.add(progress.row, progress.rounds)

    files.finish(run_simulated(settings, listen))


def cell(folder: str, label: str, algorithm: str, seed: int, **more: Any) -> dict[str, Any]:
    """What `comparison.json` says of one run."""
    return {
        "folder": folder, "label": label, "algorithm": algorithm, "seed": seed, "network": None, "partition": "iid",
        "why": None, "seconds": None, "peak_memory_bytes": None, **more,
    }  # fmt: skip
