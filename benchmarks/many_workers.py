"""The memory of a simulation with 1,000 workers of the MLP 784-512-10 (407,050 parameters) on batches of 10.

    python benchmarks/many_workers.py                       # 1,000 workers of four methods
    python benchmarks/many_workers.py ssgd-topk sgd-model   # of these
    python benchmarks/many_workers.py --line                # by a line through 30 and 100, of all with equal replicas

Each runs three rounds in a process of its own, whose peak is read after them.
"""

import multiprocessing
import resource
import sys

import torch
from torch.nn.functional import cross_entropy

import laconic
from laconic.lab.algorithms import make_algorithm

METHODS = ("sgd", "signsgd-mv", "ssgd-mv", "compskip")
WORKERS, ROUNDS = 1000, 3


def peak_gib(method: str, workers: int) -> float:
    """Return the peak memory of this process after a few rounds, in GiB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)
    model = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    inputs, labels = torch.randn(10, 1, 28, 28), torch.randint(10, (10,))
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    simulation = laconic.Simulation(model, inner, make_algorithm(method, {}), workers=workers, lr="kept")
    for _ in range(ROUNDS):
        simulation.step(lambda rank: cross_entropy(model(inputs + rank / workers), labels))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_own_process(method: str, workers: int) -> float:
    """Return the same of another process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_gib, (method, workers))


def on_line(method: str, few: int = 30, many: int = 100) -> float:
    """Return what 1,000 workers take if each takes as much as those between these numbers."""
    low, high = in_own_process(method, few), in_own_process(method, many)
    return low + (high - low) * (WORKERS - few) / (many - few)


if __name__ == "__main__":
    equal = [name for name, kind in sorted(laconic.ALGORITHMS.items()) if kind.replicas_equal and kind.mode == "rounds"]
    by_line, given = "--line" in sys.argv, [name for name in sys.argv[1:] if name != "--line"]
    for name in given or (equal if by_line else METHODS):
        peak = on_line(name) if by_line else in_own_process(name, WORKERS)
        sys.stdout.write(f"{name:12} {peak:.1f} GiB\n")
        sys.stdout.flush()
