"""What a Prometheus endpoint costs a step: of two equal jobs over two ranks, which step in turn, one is observed.

torchrun --standalone --nproc-per-node 2 benchmarks/prometheus_cost.py

Steps by the clock differ by more than an endpoint takes, where a machine does other work. So each is measured in the
time that its thread had of a processor, too, and in calls; and by themselves what counts a round, within those steps,
and what answers a scraper.
"""

import argparse
import statistics
import sys
import time
import urllib.request

import torch
import torch.distributed as dist
from rich.console import Console

import laconic
from laconic.telemetry.recorder import RoundStats

WIDTH, WARM_UP, SCRAPES, SCRAPE_S = 512, 20, 100, 15.0


class Job:
    """A perceptron of 525,312 parameters, and its optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH)
        self._model = torch.nn.Sequential(*layers)
        inner = torch.optim.SGD(self._model.parameters(), lr=0.01)
        self.opt = laconic.DistributedOptimizer(inner, laconic.ECSGD(), model=self._model)
        self._inputs = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(dist.get_rank()))

    def step_s(self) -> tuple[float, float]:
        """Take a step. Returns its seconds by the clock, and those that this thread had a processor."""
        dist.barrier()
        begun, used = time.perf_counter(), time.thread_time()
        self.opt.zero_grad()
        self._model(self._inputs).square().mean().backward()
        self.opt.step()
        return time.perf_counter() - begun, time.thread_time() - used

    def n_calls(self) -> int:
        """Take a step. Returns how many calls it makes in this thread, of Python's functions and of compiled ones."""
        events: list[str] = []
        sys.setprofile(lambda frame, event, argument: events.append(event))
        self.step_s()
        sys.setprofile(None)
        return sum(event in ("call", "c_call") for event in events)


def main(arguments: list[str]) -> int:
    """Print what each part takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    asked = parser.parse_args(arguments)
    dist.init_process_group("gloo")
    jobs, counted_s, steps_s = (Job(), Job()), [], ([], [])
    with laconic.PrometheusEndpoint() as endpoint:

        def count(stats: RoundStats) -> None:
            begun = time.thread_time()
            endpoint.count(stats)
            counted_s.append(time.thread_time() - begun)

        laconic.observe(jobs[1].opt, count)
        for turn in range(WARM_UP + asked.steps):
            for place in ((0, 1), (1, 0))[turn % 2]:
                steps_s[place].append(jobs[place].step_s())
        calls = [statistics.median(job.n_calls() for _ in range(9)) for job in jobs]
        answer_s = _answer_s(f"http://127.0.0.1:{endpoint.port}/metrics")
    if dist.get_rank() == 0:
        plain, observed = ([*zip(*taken[WARM_UP:], strict=True)] for taken in steps_s)
        _show(plain, observed, counted_s[WARM_UP:], answer_s)
        Console().print(f"calls of a step: {calls[0]:,.0f}, observed {calls[1]:,.0f}")
    dist.destroy_process_group()
    return 0


def _answer_s(address: str) -> float:
    """Return the processor's seconds that one answer takes, while nothing else runs in this process."""
    used, own = time.process_time(), time.thread_time()
    for _ in range(SCRAPES):
        with urllib.request.urlopen(address) as answer:
            answer.read()
    return (time.process_time() - used - (time.thread_time() - own)) / SCRAPES


def _show(
    plain: list[tuple[float, ...]], observed: list[tuple[float, ...]], counted_s: list[float], answer_s: float
) -> None:
    console = Console(soft_wrap=True, highlight=False)
    middle_s = statistics.median(plain[0])
    console.print(
        f"a step that is not observed: {1e6 * middle_s:,.0f} us by the clock, {len(plain[0])} of each in turn"
    )
    for what, one, other in zip(("by the clock", "of its thread"), plain, observed, strict=True):
        low, middle, high = statistics.quantiles([b - a for a, b in zip(one, other, strict=True)], n=4)
        console.print(
            f"an observed step, {what}: {1e6 * middle:+,.1f} us ({1e6 * low:+,.1f} .. {1e6 * high:+,.1f}), "
            f"{100 * middle / middle_s:+.2f} % of a step"
        )
    counting_s = statistics.median(counted_s)
    console.print(f"counting a round, within it: {1e6 * counting_s:.1f} us, {100 * counting_s / middle_s:.2f} %")
    console.print(
        f"an answer to a scraper: {1e6 * answer_s:,.0f} us of a processor; each {SCRAPE_S:g} s "
        f"{100 * answer_s / SCRAPE_S:.4f} % of it"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
