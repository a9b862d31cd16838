"""How far one step travels: calls, files and climbs of one EC-SGD `step()` over two processes, served by rank 0.

    python benchmarks/step_distance.py [--rank 1] [--numba] [--show]

Counted are calls of laconic's own functions in one step of one rank, after a few steps that set things up. Lambdas and
comprehensions are not counted. Kernels are the reference ones, unless --numba is given: those of numba are called
through a few functions more. A climb is a call from a package into a higher one (`LEVELS`).
"""

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

if "--numba" not in sys.argv:
    sys.modules["numba"] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", "numba cannot be imported")

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import laconic

ROOT = Path(laconic.__file__).parent
# From the top down, as the docs' map has it. The face forwards names only and is never entered in a step.
LEVELS = [
    {"cli"}, {"report"}, {"bench", "planning", "reproduce"}, {"lab"}, {"training"}, {"drivers"},
    {"faults", "algorithms"}, {"protocol", "policies"}, {"contract", "compressors", "telemetry"}, {"wire", "network"},
    {"kernels", "gossip"},
]  # fmt: skip
N_SETUP_STEPS = 3


def level_of(file: str) -> int:
    """Return 0 for the top level; the ground, which belongs to no package, is the lowest."""
    package = file.split("/")[0]
    return next((level for level, packages in enumerate(LEVELS) if package in packages), len(LEVELS))


class Distance:
    """What `sys.setprofile` sees of one step."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.climbs: Counter[str] = Counter()
        self._files: dict[str, str | None] = {}

    def see(self, frame: FrameType, event: str, _: object) -> None:
        """Count one event; generators that are resumed count as called."""
        if event != "call" or (file := self._file_of(frame)) is None or frame.f_code.co_name.startswith("<"):
            return
        name = f"{file}:{frame.f_code.co_qualname}"
        self.calls[name] += 1
        caller = frame.f_back
        while caller is not None and self._file_of(caller) is None:
            caller = caller.f_back
        origin = None if caller is None else self._file_of(caller)
        if caller is not None and origin is not None and level_of(file) < level_of(origin):
            self.climbs[f"{origin}:{caller.f_code.co_qualname} -> {name}"] += 1

    def _file_of(self, frame: FrameType) -> str | None:
        """Return the file of a function of laconic, relative to the package; None for other functions."""
        path = frame.f_code.co_filename
        if path not in self._files:
            inside = path.startswith(f"{ROOT}/")
            self._files[path] = path.removeprefix(f"{ROOT}/") if inside else None
        return self._files[path]


def measure(rank: int, watched: int, folder: str) -> None:
    """Take the steps of one rank; the watched one writes its counts to a file in `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 10), torch.nn.ReLU(), torch.nn.Linear(10, 1))
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    opt = laconic.DistributedOptimizer(inner, laconic.ECSGD(), model=model, layout="rank0", check_every=0)
    distance = Distance()
    for step in range(N_SETUP_STEPS + 1):
        opt.zero_grad()
        model(torch.randn(8, 20)).square().mean().backward()
        if step == N_SETUP_STEPS and rank == watched:
            sys.setprofile(distance.see)
        opt.step()
        sys.setprofile(None)
    if rank == watched:
        Path(folder, "counts").write_text(json.dumps([distance.calls, distance.climbs]))
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, choices=(0, 1), default=1, help="whose step is watched; rank 0 also serves")
    parser.add_argument("--numba", action="store_true", help="use the kernels of numba")
    parser.add_argument("--show", action="store_true", help="list every function, file and climb")
    given = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(measure, (given.rank, folder), nprocs=2)
        calls, climbs = json.loads(Path(folder, "counts").read_text())
    files = Counter[str]()
    for name, n in calls.items():
        files[name.split(":")[0]] += n
    outside = [file for file in files if not file.startswith("kernels/")]
    if given.show:
        for name, n in [*sorted(calls.items()), *sorted(files.items()), *sorted(climbs.items())]:
            sys.stdout.write(f"{n:4} {name}\n")
    sys.stdout.write(
        f"one EC-SGD step of rank {given.rank}: {sum(calls.values())} calls, {len(outside)} files outside kernels, "
        f"{sum(climbs.values())} climbs\n"
    )


if __name__ == "__main__":
    main()
