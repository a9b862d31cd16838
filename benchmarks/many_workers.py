"""The memory of a simulation with 1,000 workers of the MLP 784-512-10 (407,050 parameters) on batches of 10.

    python benchmarks/many_workers.py

Each method runs three rounds in a process of its own, whose peak is read after them.
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


def peak_gib(method: str) -> float:
    """Return the peak memory of this process after a few rounds, in GiB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)
    model = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    inputs, labels = torch.randn(10, 1, 28, 28), torch.randint(10, (10,))
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    simulation = laconic.Simulation(model, inner, make_algorithm(method, {}), workers=WORKERS, lr="kept")
    for _ in range(ROUNDS):
        simulation.step(lambda rank: cross_entropy(model(inputs + rank / WORKERS), labels))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    for name in METHODS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            sys.stdout.write(f"{name:12} {pool.apply(peak_gib, (name,)):.1f} GiB\n")
            sys.stdout.flush()
