"""One event a round: what observers get adds up to the meters."""

from itertools import pairwise

import pytest
import torch

import laconic
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.protocol.round_inputs import Inputs
from laconic.telemetry.meter import Count
from support.ranks import run_ranks

D = 40


def job_with_events(algorithm, **observing):
    """A simulated job and the list of its events, which grows round by round."""
    driver = Simulated(algorithm, spec=ModelSpec.of_sizes(D), n_workers=3, layout="rank0", seed=2)
    events = []
    driver.recorder.observe(events.append, **observing)
    return driver, events


def play(driver, factors):
    """One round for each factor, by which worker 1's gradient is multiplied."""
    for number, factor in enumerate(factors):
        gradients = [torch.arange(1.0, D + 1) * (rank + 1) * (-1) ** number for rank in range(3)]
        gradients[1] *= factor
        driver.round(lambda rank: Inputs(vector=gradients[rank], parameters=torch.zeros(D)), 0.1)  # noqa: B023


@pytest.mark.parametrize("name", ["ec-sgd", "compskip", "ssgd-mv"])
def test_the_traffic_of_all_rounds_adds_up_to_the_meters(name):
    cls = laconic.ALGORITHMS[name]
    driver, events = job_with_events(cls(**cls.test_settings))
    play(driver, [1.0, 2.0, 3.0, 4.0])
    assert [event.round for event in events] == [0, 1, 2, 3]
    for direction, of_event in (("up", lambda event: event.up), ("down", lambda event: event.down)):
        total = sum((count for event in events for count in of_event(event).values()), Count())
        expected = sum((worker.meter.counts[direction] for worker in driver.workers), Count())
        assert (total.messages, total.wire_bytes, total.payload_bits, total.skips) == (
            expected.messages, expected.wire_bytes, expected.payload_bits, expected.skips,
        )  # fmt: skip


def test_an_aborted_round_says_so():
    driver, events = job_with_events(laconic.ECSGD())
    play(driver, [1.0, torch.inf, 1.0])
    assert [event.aborted for event in events] == [False, True, False]


def test_the_norm_of_the_residuals_is_reported_only_on_request():
    driver, events = job_with_events(laconic.ECSGD(), residual_norm=True)
    play(driver, [1.0])
    residuals = torch.cat([worker.me.memory["residual"] for worker in driver.workers])
    assert events[0].residual_norm == pytest.approx(float(residuals.norm()))
    driver, events = job_with_events(laconic.ECSGD())
    play(driver, [1.0])
    assert events[0].residual_norm is None


def phases_of_three_rounds(rank):
    weight = torch.nn.Parameter(torch.zeros(D))
    opt = laconic.DistributedOptimizer(torch.optim.SGD([weight], lr=0.1), laconic.ECSGD(), layout="rank0")
    events = []
    opt.driver.recorder.observe(events.append)
    for _ in range(3):
        weight.grad = torch.ones(D)
        opt.step()
    return [[phase for phase, _, _ in event.phases] for event in events], [event.phases for event in events]


@pytest.mark.slow
def test_a_process_reports_the_phases_of_each_round_without_gaps():
    for names, phases in run_ranks(phases_of_three_rounds, 2):
        for of_round in names:
            assert of_round[0] == "compute"
            assert {"encode", "wait", "decode"} <= set(of_round)
        ends = [(start, end) for of_round in phases for _, start, end in of_round]
        assert all(end == start for (_, end), (start, _) in pairwise(ends))
