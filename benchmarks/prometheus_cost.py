"""What a Prometheus endpoint costs a step: two equal jobs over two ranks in turn, one of them observed.

torchrun --standalone --nproc-per-node 2 benchmarks/prometheus_cost.py
"""

import statistics
import sys
import time

import torch
import torch.distributed as dist
from rich.console import Console

import laconic

TURNS, STEPS, WIDTH = 40, 10, 512


def job() -> tuple[torch.nn.Module, laconic.DistributedOptimizer]:
    """Return a perceptron of 527,360 parameters and its optimizer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH))
    return model, laconic.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.01), laconic.ECSGD(), model=model
    )


def steps_s(model: torch.nn.Module, opt: laconic.DistributedOptimizer, inputs: torch.Tensor) -> float:
    """Return the seconds of some steps."""
    begun = time.perf_counter()
    for _ in range(STEPS):
        opt.zero_grad()
        model(inputs).square().mean().backward()
        opt.step()
    return time.perf_counter() - begun


def main() -> int:
    """Print the ratio."""
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    inputs = torch.randn(64, WIDTH)
    plain, observed = job(), job()
    with laconic.PrometheusEndpoint() as endpoint:
        endpoint.observe(observed[1])
        ratios = []
        for turn in range(TURNS + 2):
            one, other = (steps_s(*both, inputs) for both in (plain, observed))
            if turn > 1:
                ratios.append(other / one)
    if dist.get_rank() == 0:
        low, middle, high = statistics.quantiles(ratios, n=4)
        Console().print(
            f"a step that is observed over one that is not: {middle:.4f} ({low:.4f} .. {high:.4f}), {TURNS} turns"
        )
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
