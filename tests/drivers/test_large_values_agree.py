"""Rounds with inf, NaN and large numbers: the same bits, bytes and aborts in processes and simulator."""

from dataclasses import asdict
from typing import Any

import pytest
import torch

import laconic
from support import methods
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks
from support.slopes import Slopes, not_finite, simulated, slope_with, state_of

N = 3
CASES = [
    *((name, layout) for name in methods.IN_STEP for layout in methods.layouts_of(methods.with_test_settings(name), N)),
]
BAD = (torch.nan, torch.inf, 1e38, 3e38, torch.finfo(torch.float32).max)
STEPS = 2 + 2 * len(BAD)


def slope_of(rank: int, step: int) -> torch.Tensor:
    """Every other step, one value of rank 1 is bad."""
    number = step // 2
    return slope_with(rank, step, BAD[number % len(BAD)], {(1, step): 7} if step % 2 else {})


def train(rank: int, cases: list[tuple[str, str]]) -> list[dict[str, Any]]:
    ended = []
    for name, layout in cases:
        model, algorithm = Slopes(), methods.with_test_settings(name)
        opt = laconic.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.1), algorithm, model=model, layout=layout, seed=3,
            timeout_s=PATIENCE_S,
        )  # fmt: skip

        def closure(model=model, opt=opt, step=0) -> torch.Tensor:
            opt.zero_grad()
            loss = model.loss(slope_of(rank, step))
            loss.backward()
            return loss

        for step in range(STEPS):
            opt.step(None if opt.serves_only else (lambda step=step, run=closure: run(step=step)))
            assert not not_finite(state_of(opt)), f"{name}, {layout}, step {step}: {not_finite(state_of(opt))}"
        traffic = opt.traffic.as_data()
        ended.append(
            {"model": opt.flat.values(), "serves": opt.serves_only}
            | {key: traffic[key] for key in ("up", "down", "aborted_rounds", "up_by_exchange", "down_by_exchange")}
        )
    return ended


@pytest.mark.nightly  # tests/training/test_large_values.py has the same without processes
def test_processes_and_the_simulator_abort_the_same_rounds_and_count_the_same_bytes():
    by_rank = run_ranks(train, N, CASES)
    for place, (name, layout) in enumerate(CASES):
        model, simulation = simulated(name, lr=0.1, workers=N - (layout == "dedicated"), layout=layout)
        for step in range(STEPS):
            simulation.step(lambda rank, step=step, model=model: model.loss(slope_of(rank, step)))
        assert simulation.traffic.aborted_rounds >= 2
        for rank in range(simulation.n_workers):
            mine, where = simulation.traffic_of(rank), f"{name}, {layout}, rank {rank}"
            there = by_rank[rank][place]
            assert there["aborted_rounds"] == mine.aborted_rounds, where
            assert torch.equal(there["model"], simulation.parameters_of(rank)), where
            assert (there["up"], there["down"]) == (asdict(mine.up), asdict(mine.down)), where
        assert {ranks[place]["aborted_rounds"] for ranks in by_rank} == {simulation.traffic.aborted_rounds}, (
            name,
            layout,
        )


def test_a_worker_on_a_ring_that_does_not_know_of_an_abort_yet_sends_its_frames():
    """NaN at worker 1: its frames are ABORT, and those of whoever got one; the others' are full."""
    model, simulation = simulated("csgd-ring", lr=0.1, workers=3)
    simulation.step(lambda rank: model.loss(slope_with(rank, 0, 0.0, {})))
    full = [simulation.traffic_of(rank).up.wire_bytes for rank in range(3)]
    simulation.step(lambda rank: model.loss(slope_with(rank, 1, torch.nan, {(1, 1): 7})))
    sent = [simulation.traffic_of(rank).up.wire_bytes - before for rank, before in enumerate(full)]
    messages = {simulation.traffic_of(rank).up.messages for rank in range(3)}
    assert messages == {8}  # 2 (N - 1) exchanges in both rounds
    assert sent[1] == 4 * 32
    assert sent[1] < sent[2] < sent[0] < full[0]
