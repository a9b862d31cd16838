"""The two engines of a schedule, callbacks and machine code, agree to the nanosecond on any schedule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.network import (
    Computation,
    Link,
    Message,
    MessageSchedule,
    Network,
    Sites,
    by_callbacks,
    by_machine_code,
    makespan_ns,
    ring,
    rounds,
    sharded,
    simulate,
)
from laconic.network.simulate import COMPILED_FROM

NODES = st.integers(0, 3)
# Few different times and sizes, so that many things happen at one instant.
TIMES = st.sampled_from([0, 0, 0, 5, 10])
SIZES = st.sampled_from([0, 0, 5, 10, 17])


@st.composite
def message_schedules(draw):
    steps = []
    for place in range(draw(st.integers(0, 25))):
        after = tuple(draw(st.lists(st.integers(0, place - 1), max_size=3))) if place else ()
        if draw(st.integers(0, 4)):
            steps.append(Message(draw(NODES), draw(NODES), draw(SIZES), after, draw(TIMES)))
        else:
            steps.append(Computation(draw(NODES), draw(SIZES), after, draw(TIMES)))
    order = draw(st.permutations(range(len(steps))))  # listed in any order, with the places renamed
    where = {old: new for new, old in enumerate(order)}
    moved = [steps[old] for old in order]
    return [type(step)(*numbers(step), tuple(where[old] for old in step.after), step.at_ns) for step in moved]


def numbers(step):
    if isinstance(step, Message):
        return step.sender, step.receiver, step.n_bytes
    return step.node, step.duration_ns


LINKS = st.builds(
    lambda bandwidth, down, latency: Link(
        bytes_per_s=bandwidth * 1e9, down_bytes_per_s=down and down * 1e9, latency_s=latency / 1e9
    ),
    st.sampled_from([0.5, 1, 3]),
    st.sampled_from([None, None, 1, 2]),
    st.sampled_from([0, 5, 3]),
)
SITES = st.builds(
    lambda sizes, line: sizes and Sites(sizes=sizes, line=Link(bytes_per_s=line * 1e9, latency_s=line / 1e9)),
    st.sampled_from([None, (2, 2), (1, 2), (1, 1, 2)]),
    st.sampled_from([0.5, 2]),
)


def columns(times):
    return [column.tolist() for column in (times.requested_ns, times.start_ns, times.end_ns)]


@settings(deadline=None)  # the first example compiles
@given(message_schedules(), LINKS, st.dictionaries(NODES, LINKS), st.sampled_from([0, 7]), SITES)
def test_both_engines_give_the_same_times_and_end_with_the_same_network(steps, link, links, from_ns, sites):
    networks = [Network(4, link, links=links, sites=sites) for _ in range(2)]
    for network in networks:
        network.clock.run(from_ns)
        network.send(0, 1, 20, lambda: None)
        network.compute(2, 9, lambda: None)
        network.clock.run()
    message_schedule = MessageSchedule.of(steps)
    by_hand, compiled = by_callbacks(message_schedule, networks[0]), by_machine_code(message_schedule, networks[1])
    assert columns(by_hand) == columns(compiled)
    assert networks[0].ports == networks[1].ports
    assert networks[0].clock.now_ns == networks[1].clock.now_ns


@pytest.mark.parametrize(
    "message_schedule", [ring(40, 10**6 + 3), sharded(40, 10**6 + 3), rounds(ring(9, 1000), range(9), 3)]
)
def test_both_engines_agree_on_rounds_with_nodes_of_their_own(message_schedule):
    links = {node: Link(bytes_per_s=1e8 + node, latency_s=node / 1e6) for node in range(1, 40, 3)}
    times = [
        engine(message_schedule, Network(40, Link(bytes_per_s=1e9 / 3), links=links))
        for engine in (by_callbacks, by_machine_code)
    ]
    assert columns(times[0]) == columns(times[1])


def test_a_large_message_schedule_takes_no_callbacks_unless_chance_or_others_have_a_say():
    message_schedule = sharded(50, 10**6)
    assert len(message_schedule) >= COMPILED_FROM
    link = Link(bytes_per_s=1e9, latency_s=1e-6)
    baseline_ns = makespan_ns(message_schedule, Network(50, link))

    interrupted, seen = Network(50, link), []
    interrupted.clock.at(1_000, lambda: interrupted.send(0, 1, 10**6, lambda: seen.append("arrived")))
    assert makespan_ns(message_schedule, interrupted) > baseline_ns
    assert seen == ["arrived"]

    jittery = Link(bytes_per_s=1e9, latency_s=1e-6, jitter_s=1e-6)
    spans = {makespan_ns(message_schedule, Network(50, jittery, seed=seed)) for seed in (1, 1, 2)}
    assert len(spans) == 2
    assert min(spans) > baseline_ns


def test_a_slow_network_is_refused_by_both_engines():
    message_schedule = ring(60, 10**6)
    for n_steps in (10, len(message_schedule)):
        with pytest.raises(ValueError, match="more than 146 years"):
            simulate(message_schedule[:n_steps], Network(60, Link(latency_s=4.7e9)))


def test_two_thousand_messages_that_wait_for_the_same_thousand_are_stored_once():
    workers_ = tuple(range(1000))
    messages = [Message(0, 1, 1) for _ in workers_] + [Message(1, 0, 1, workers_) for _ in range(2000)]
    message_schedule = MessageSchedule.of(messages)
    assert len(message_schedule.gate_steps) == 1000
    assert message_schedule[2999].after == workers_


@pytest.mark.nightly
@pytest.mark.parametrize("pattern", [ring, sharded])
def test_a_round_of_1024_workers_takes_the_closed_form(pattern):
    n, t_ns = 1024, 1024 * 1000
    network = Network(n, Link(bytes_per_s=1e9, latency_s=1e-4))
    message_schedule = pattern(n, t_ns)
    assert len(message_schedule) == 2 * n * (n - 1)
    assert makespan_ns(message_schedule, network) == 2 * (n - 1) * (100_000 + t_ns // n)
    assert np.unique(message_schedule.amount).tolist() == [1000]
