"""Count the calls of a simulated round, those of torch and Python's built-in ones too: no machine's load changes them.

    python benchmarks/round_calls.py

7 workers train an MLP 784-64-10 on batches of one image each: a gradient takes so little there that what the simulator
does around it shows. A gradient's own calls are counted once more in a bare loop.
"""

import cProfile
import pstats
import sys
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

import laconic
from laconic.lab.algorithms import make_algorithm

METHODS = ("sgd", "signsgd-mv", "dropsign", "compskip", "dist-ef", "sparse", "ssgd-mv")
WORKERS, ROUNDS = 7, 20


def calls_of(run: Callable[[], object]) -> float:
    """Return the calls of one of `ROUNDS` runs, after three that are not counted."""
    for _ in range(3):
        run()
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(ROUNDS):
        run()
    profile.disable()
    return pstats.Stats(profile).total_calls / ROUNDS


def count(method: str) -> tuple[float, float]:
    """Return the calls of a round and of the bare loop, over the number of workers."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    inputs, labels = torch.randn(WORKERS, 1, 1, 28, 28), torch.randint(10, (WORKERS, 1))
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    simulation = laconic.Simulation(model, inner, make_algorithm(method, {}), workers=WORKERS, lr="kept")

    def loss_of(rank: int) -> torch.Tensor:
        return cross_entropy(model(inputs[rank]), labels[rank])

    def gradients() -> None:
        for rank in range(WORKERS):
            model.zero_grad()
            loss_of(rank).backward()

    return calls_of(lambda: simulation.step(loss_of)) / WORKERS, calls_of(gradients) / WORKERS


if __name__ == "__main__":
    sys.stdout.write(f"{'method':12} {'calls':>6} {'bare':>6}   of a worker's round, and of its gradient alone\n")
    for name in METHODS:
        round_calls, bare_calls = count(name)
        sys.stdout.write(f"{name:12} {round_calls:6.0f} {bare_calls:6.0f}\n")
