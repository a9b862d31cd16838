"""What a checkpoint costs beside `torch.save`: the same state of one rank saved in turn by both, each brought to disk.

python benchmarks/checkpoint_cost.py
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console

import laconic

TURNS, WIDTH = 9, 2048


def main() -> int:
    """Print the ratio of a save and of a load."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH))
    opt = laconic.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), laconic.ECSGD(), model=model
    )
    model(torch.randn(8, WIDTH)).square().mean().backward()
    opt.step()
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))

    def torchs_save() -> None:
        with (folder / "torch.pt").open("wb") as stream:
            torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, stream)
            stream.flush()
            os.fsync(stream.fileno())

    def torchs_load() -> None:
        state = torch.load(folder / "torch.pt", weights_only=True)
        model.load_state_dict(state["model"])
        opt.load_state_dict(state["opt"])

    def seconds(*acts: object) -> list[float]:
        found = []
        for act in acts:
            begun = time.perf_counter()
            act()  # type: ignore[operator]
            found.append(time.perf_counter() - begun)
        return found

    saves, loads = [], []
    try:
        for turn in range(TURNS + 1):
            run = folder / str(turn)
            found = seconds(torchs_save, lambda: laconic.checkpoint.save(run, opt, step=1))  # noqa: B023 - called here
            saves.append(found[1] / found[0])
            found = seconds(torchs_load, lambda: laconic.checkpoint.load(run, opt))  # noqa: B023
            loads.append(found[1] / found[0])
            shutil.rmtree(run)
    finally:
        shutil.rmtree(folder)
    for name, ratios in (("save", saves[1:]), ("load", loads[1:])):
        low, middle, high = statistics.quantiles(ratios, n=4)
        Console().print(f"{name}: {middle:.2f} ({low:.2f} .. {high:.2f}) times torch's, {TURNS} turns")
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
