"""What `side_by_side=2` saves of a simulated round, in turns with rounds without it. It needs two cores.

    OMP_NUM_THREADS=1 python benchmarks/side_by_side.py

4 workers of compskip train models of `laconic` on made images, the MLP of 407,050 parameters among them. The parameters
of both simulations are compared bit for bit.
"""

import statistics
import sys
import time

import torch
from torch.nn.functional import cross_entropy

import laconic
from laconic.lab.models import build

MODELS = (  # name, shape of its inputs, batch size, turns
    ("mlp", (1, 28, 28), 10, 41),
    ("mlp", (1, 28, 28), 32, 41),
    ("mlp", (1, 28, 28), 128, 21),
    ("cnn", (3, 32, 32), 32, 21),
    ("resnet18", (3, 32, 32), 8, 5),
)
WORKERS = 4


class Job:
    """A simulation with its mini-batches."""

    def __init__(self, name: str, shape: tuple[int, ...], batch: int, side_by_side: int) -> None:
        random = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(WORKERS, batch, *shape, generator=random)
        self.labels = torch.randint(10, (WORKERS, batch), generator=random)
        self.model = build(name, shape, 10, seed=0)
        inner = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.simulation = laconic.Simulation(
            self.model, inner, laconic.CompSkip(), workers=WORKERS, lr="kept", side_by_side=side_by_side
        )

    def seconds(self) -> float:
        """Return the seconds of one round."""
        start = time.perf_counter()
        self.simulation.step(lambda rank: cross_entropy(self.model(self.inputs[rank]), self.labels[rank]))
        return time.perf_counter() - start


def main() -> None:
    """Print a line for each model."""
    torch.set_num_threads(1)
    sys.stdout.write(f"{'model':9} {'parameters':>10} {'batch':>5} {'saves':>6}   quartiles\n")
    for name, shape, batch, turns in MODELS:
        alone, threaded = Job(name, shape, batch, 1), Job(name, shape, batch, 2)
        for job in (alone, threaded) * 2:
            job.seconds()
        ratios = [alone.seconds() / threaded.seconds() for _ in range(turns)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        pairs = zip(alone.model.parameters(), threaded.model.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), "the same bits"
        d = f"{alone.simulation.flat.d:,}"
        sys.stdout.write(f"{name:9} {d:>10} {batch:5} {middle:5.2f}x   {low:.2f} .. {high:.2f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
