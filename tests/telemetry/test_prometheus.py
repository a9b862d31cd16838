"""`laconic.PrometheusEndpoint` shows the rounds of a job over HTTP, as the job's own meters count them."""

import re
import sys
import urllib.request

import pytest
import torch

import laconic
from laconic.errors import OptionError
from laconic.telemetry.meter import Count
from laconic.telemetry.recorder import RoundStats

pytest.importorskip("prometheus_client", reason="the extra `prometheus` is not installed")


def samples(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(r"^(laconic_\S+?)(\{.*?\})? (\S+)$", text, flags=re.MULTILINE)
    return {name + labels: float(value) for name, labels, value in found}


def simulation(algorithm=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 2)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, laconic.Simulation(model, inner, algorithm or laconic.ECSGD(), workers=2)


def test_the_counters_are_those_of_the_job():
    model, job = simulation()
    inputs = torch.randn(2, 8)
    with laconic.PrometheusEndpoint(labels={"run": "a"}) as endpoint:
        endpoint.observe(job, residual_norm=True)
        for _ in range(3):
            job.step(lambda rank: model(inputs[rank : rank + 1]).square().sum())
        found = samples(endpoint.port)
    assert found['laconic_rounds_total{run="a"}'] == 3
    assert found['laconic_aborted_rounds_total{run="a"}'] == 0
    assert found['laconic_inside_wire_bytes_total{run="a"}'] == 0
    for direction, count in (("up", job.traffic.up), ("down", job.traffic.down)):
        labels = f'{{direction="{direction}",exchange="update",run="a"}}'
        assert found[f"laconic_wire_bytes_total{labels}"] == count.wire_bytes > 0
        assert found[f"laconic_payload_bits_total{labels}"] == count.payload_bits
    assert found['laconic_residual_norm{run="a"}'] > 0


def test_an_aborted_round_is_counted_and_two_endpoints_do_not_meet():
    model, job = simulation()
    with laconic.PrometheusEndpoint() as one, laconic.PrometheusEndpoint() as other:
        one.observe(job)
        job.step(lambda rank: model(torch.full((1, 8), float("inf"))).sum())
        assert samples(one.port)["laconic_aborted_rounds_total"] == 1
        assert samples(other.port)["laconic_rounds_total"] == 0


def test_a_port_that_is_taken_or_out_of_range_and_a_label_that_is_no_name_are_refused():
    with laconic.PrometheusEndpoint() as endpoint:
        with pytest.raises(
            OptionError, match=rf"port={endpoint.port} cannot be listened at on 127\.0\.0\.1.*0 takes a"
        ):
            laconic.PrometheusEndpoint(endpoint.port)
        with pytest.raises(OptionError, match="port=70000 must be from 0 to 65535"):
            laconic.PrometheusEndpoint(70_000)
        with pytest.raises(TypeError, match="port='9100' must be a whole number"):
            laconic.PrometheusEndpoint("9100")
        for name in ("__reserved", "direction"):
            with pytest.raises(OptionError, match=f"labels=.*{name}"):
                laconic.PrometheusEndpoint(labels={name: "a"})


def test_after_the_end_nobody_listens():
    with laconic.PrometheusEndpoint() as endpoint:
        samples(endpoint.port)
    endpoint.close()  # again: nothing happens
    with pytest.raises(OSError, match="refused"):
        samples(endpoint.port)


def test_a_step_waits_for_few_calls_and_rounds_that_no_scrape_takes_up_are_bounded_in_number():
    stats = RoundStats(round=0, aborted=False, phases=[("wait", 0.0, 0.5)], up={"update": Count(wire_bytes=7)}, down={})
    with laconic.PrometheusEndpoint() as endpoint:
        calls = []
        for _ in range(1000):
            events = []
            sys.setprofile(lambda frame, event, argument, events=events: events.append(event))
            endpoint.count(stats)
            sys.setprofile(None)
            calls.append(sum(event in ("call", "c_call") for event in events) - 1)  # that of setprofile
        assert sorted(calls)[900] <= 3
        shown = {sample.name: sample.value for metric in endpoint.collect() for sample in metric.samples}
        assert shown["laconic_rounds_total"] == 1000
        assert shown["laconic_phase_seconds_total"] == 500
        found = samples(endpoint.port)
    assert found["laconic_rounds_total"] == 1000
    assert found['laconic_wire_bytes_total{direction="up",exchange="update"}'] == 7000


def calls_of_a_step(model, job):
    events = []
    for _ in range(4):
        del events[:]
        sys.setprofile(lambda frame, event, argument: events.append(event))
        job.step(lambda rank: model(torch.full((1, 8), 1.0 + rank)).square().sum())
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in events)


def test_an_observed_step_makes_few_calls_more():
    plain, observed = simulation(), simulation()
    with laconic.PrometheusEndpoint() as endpoint:
        endpoint.observe(observed[1])
        assert calls_of_a_step(*observed) - calls_of_a_step(*plain) <= 30
