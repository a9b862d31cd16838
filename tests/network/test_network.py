"""Links and ports, against Liu and Zhang, section 1.3: its example, jitter and losses, any traffic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.network import Clock, Link, Network
from laconic.network.network import LONGEST_NS

S = 1_000_000_000  # nanoseconds in a time unit of the paper, here 1 s
MB = 1_000_000


def deliver(network, requests):
    """Send each (time_ns, sender, receiver, n_bytes) at its time; (start_ns, end_ns) of each, as listed."""
    spans = [None] * len(requests)

    def send(place, sender, receiver, n_bytes):
        duration_ns = network.link_between(sender, receiver).duration_ns(n_bytes) if sender != receiver else 0

        def arrived():
            spans[place] = (network.clock.now_ns - duration_ns, network.clock.now_ns)

        network.send(sender, receiver, n_bytes, arrived)

    for place, (time_ns, *message) in enumerate(requests):
        network.clock.at(time_ns, lambda place=place, message=message: send(place, *message))
    network.clock.run()
    return spans


# Example 1.3.1. Machines M1, M2, M3 are nodes 0, 1, 2; 1.5 units of latency, 5 units a megabyte.


def example_1_3_1(n_bytes, third_receiver=0):
    network = Network(3, Link(bytes_per_s=MB / 5, latency_s=1.5))
    return deliver(
        network,
        [(5 * S, 0, 1, n_bytes), (6 * S, 1, 0, n_bytes), (6 * S, 2, third_receiver, n_bytes)],
    )


def test_example_1_3_1_takes_14_units():
    spans = example_1_3_1(MB)
    assert spans == [(5 * S, 11_500_000_000), (6 * S, 12_500_000_000), (12_500_000_000, 19 * S)]
    assert spans[-1][1] - 5 * S == 14 * S


def test_example_1_3_2_half_the_bytes_take_9_units():
    spans = example_1_3_1(MB // 2)
    assert spans == [(5 * S, 9 * S), (6 * S, 10 * S), (10 * S, 14 * S)]
    assert spans[-1][1] - 5 * S == 9 * S


def test_example_1_3_1_as_its_table_prints_it_would_take_13_and_8_units():
    assert example_1_3_1(MB, third_receiver=1)[-1] == (11_500_000_000, 18 * S)
    assert example_1_3_1(MB // 2, third_receiver=1)[-1] == (9 * S, 13 * S)


# Links.


def test_a_link_takes_its_latency_and_the_transfer():
    assert Link(bytes_per_s=125e6, latency_s=0.01).duration_ns(125_000) == 11_000_000


def test_an_unlimited_bandwidth_still_has_its_latency_and_an_empty_message_too():
    assert Link().duration_ns(10**15) == 0
    assert Link(latency_s=0.25).duration_ns(10**15) == 250_000_000
    assert Link(bytes_per_s=1.0, latency_s=0.25).duration_ns(0) == 250_000_000


def test_a_duration_is_rounded_up_never_down():
    assert Link(bytes_per_s=3e9).duration_ns(1) == 1
    assert Link(bytes_per_s=3e9).duration_ns(3) == 1
    assert Link(bytes_per_s=3e9).duration_ns(4) == 2


def test_a_decimal_setting_means_what_was_typed():
    # The float 0.1 is above one tenth; rounding its exact value up would add a nanosecond.
    assert Link(latency_s=0.1).duration_ns(0) == 100_000_000
    assert Link(bytes_per_s=0.1).duration_ns(1) == 10_000_000_000


def test_large_messages_are_exact_where_floats_would_drift():
    assert Link(bytes_per_s=1.0, latency_s=1e-9).duration_ns(10**12) == 10**21 + 1


@given(st.integers(0, 10**15), st.integers(1, 10**12), st.integers(0, 10**12))
def test_a_duration_is_the_smallest_integer_that_the_link_allows(n_bytes, bytes_per_s, latency_ns):
    link = Link(bytes_per_s=bytes_per_s, latency_s=latency_ns / S)
    exact_ns = latency_ns + Fraction(n_bytes * S, bytes_per_s)
    assert 0 <= link.duration_ns(n_bytes) - exact_ns < 1


@pytest.mark.parametrize("bytes_per_s", [0, -1.0, math.nan])
def test_a_bandwidth_that_is_not_above_zero_is_refused(bytes_per_s):
    with pytest.raises(ValueError, match=rf"Link: bytes_per_s={bytes_per_s} must be above 0 \(1 Gbit/s is"):
        Link(bytes_per_s=bytes_per_s)


@pytest.mark.parametrize("name", ["latency_s", "jitter_s", "retransmit_s"])
@pytest.mark.parametrize("seconds", [-0.1, math.inf, math.nan])
def test_a_time_that_is_negative_or_not_finite_is_refused(name, seconds):
    with pytest.raises(ValueError, match=rf"Link: {name}={seconds} must be at least 0 and finite"):
        Link(**{name: seconds})


@pytest.mark.parametrize("loss", [-0.1, 1.0, math.nan])
def test_a_loss_outside_its_range_is_refused(loss):
    with pytest.raises(ValueError, match=rf"Link: loss={loss} must be in \[0, 1\)"):
        Link(loss=loss)


def test_a_misspelt_link_setting_is_refused():
    with pytest.raises(TypeError, match="bandwidth"):
        Link(bandwidth=1.0)


# Ports. One byte takes one nanosecond here.

BYTE_A_NS = Link(bytes_per_s=1e9)


def test_two_messages_to_one_receiver_come_one_after_the_other():
    assert deliver(Network(3, BYTE_A_NS), [(0, 0, 2, 10), (0, 1, 2, 10)]) == [(0, 10), (10, 20)]


def test_a_node_sends_and_receives_at_once():
    assert deliver(Network(2, BYTE_A_NS), [(0, 0, 1, 10), (0, 1, 0, 10)]) == [(0, 10), (0, 10)]


def test_strangers_do_not_wait_for_each_other():
    assert deliver(Network(4, BYTE_A_NS), [(0, 0, 1, 10), (0, 2, 3, 10)]) == [(0, 10), (0, 10)]


def test_messages_from_one_sender_depart_one_after_the_other_and_the_latency_occupies_its_port_too():
    link = Link(bytes_per_s=1e9, latency_s=100e-9)
    assert deliver(Network(3, link), [(0, 0, 1, 10), (0, 0, 2, 10)]) == [(0, 110), (110, 220)]


def test_the_earlier_request_is_served_earlier_whatever_its_place_in_the_list():
    assert deliver(Network(3, BYTE_A_NS), [(1, 0, 2, 10), (0, 1, 2, 10)]) == [(10, 20), (0, 10)]


def test_a_message_that_waits_holds_back_later_ones_of_its_sender():
    # First come, first served: node 1's second message could start at once, yet waits behind its first.
    spans = deliver(Network(4, BYTE_A_NS), [(0, 0, 2, 10), (0, 1, 2, 10), (0, 1, 3, 10)])
    assert spans == [(0, 10), (10, 20), (20, 30)]


def test_a_message_to_oneself_takes_no_time_and_no_port():
    network = Network(2, Link(bytes_per_s=1e9, latency_s=1.0))
    assert deliver(network, [(5, 0, 0, 10)]) == [(5, 5)]
    assert network.free_at(0) == (0, 0, 0)


def test_even_a_message_to_oneself_arrives_only_after_send_has_returned():
    clock, seen = Clock(), []
    Network(1, clock=clock).send(0, 0, 10, lambda: seen.append("arrived"))
    seen.append("returned")
    clock.run()
    assert seen == ["returned", "arrived"]


def test_free_at_reports_when_each_port_is_done():
    network = Network(2, BYTE_A_NS)
    network.send(0, 1, 10, lambda: None)
    assert network.free_at(0) == (10, 0, 0)
    assert network.free_at(1).receive_ns == 10
    assert network.free_at(1).send_ns == 0


def test_a_slow_node_slows_only_its_own_messages():
    network = Network(3, BYTE_A_NS, links={2: Link(bytes_per_s=1e8)})
    assert deliver(network, [(0, 0, 1, 10), (0, 1, 2, 10), (0, 2, 0, 10)]) == [(0, 10), (0, 100), (0, 100)]


def test_between_two_links_the_lower_bandwidth_and_the_larger_latency_count():
    fast_and_far = Link(bytes_per_s=1e9, latency_s=0.5)
    slow_and_near = Link(bytes_per_s=1e6, latency_s=0.001)
    network = Network(2, fast_and_far, links={1: slow_and_near})
    expected = Link(bytes_per_s=1e6, latency_s=0.5)
    assert network.link_between(0, 1) == network.link_between(1, 0) == expected
    assert network.link_between(0, 0) == fast_and_far


def test_a_network_without_nodes_is_refused():
    with pytest.raises(ValueError, match="Network: n_nodes=0 must be at least 1"):
        Network(0)


@pytest.mark.parametrize("node", [-1, 2])
def test_a_node_that_does_not_exist_is_refused_by_name(node):
    network = Network(2)
    with pytest.raises(ValueError, match=f"sender={node} must be between 0 and 1"):
        network.send(node, 0, 1, lambda: None)
    with pytest.raises(ValueError, match=f"receiver={node} must be between 0 and 1"):
        network.send(0, node, 1, lambda: None)
    with pytest.raises(ValueError, match=f"node={node} must be between 0 and 1"):
        network.free_at(node)
    with pytest.raises(ValueError, match=f"links names node {node}, which must be between 0 and 1"):
        Network(2, links={node: Link()})


def test_a_refused_message_occupies_nothing():
    network, seen = Network(2, BYTE_A_NS), []
    with pytest.raises(ValueError, match="n_bytes=-1 must be at least 0"):
        network.send(0, 1, -1, lambda: seen.append("arrived"))
    network.clock.run()
    assert network.free_at(0) == network.free_at(1) == (0, 0, 0)
    assert seen == []


# Computations.


def test_a_node_computes_one_thing_at_a_time_while_it_sends():
    network, seen = Network(2, BYTE_A_NS), []
    network.compute(0, 10, lambda: seen.append(("first", network.clock.now_ns)))
    network.compute(0, 5, lambda: seen.append(("second", network.clock.now_ns)))
    network.compute(1, 7, lambda: seen.append(("other", network.clock.now_ns)))
    network.send(0, 1, 3, lambda: seen.append(("message", network.clock.now_ns)))
    assert network.free_at(0) == (3, 0, 15)
    network.clock.run()
    assert seen == [("message", 3), ("other", 7), ("first", 10), ("second", 15)]


def test_a_negative_computation_or_one_of_nobody_is_refused():
    network = Network(2)
    with pytest.raises(ValueError, match="duration_ns=-1 must be at least 0"):
        network.compute(0, -1, lambda: None)
    with pytest.raises(ValueError, match="node=2 must be between 0 and 1"):
        network.compute(2, 1, lambda: None)


# Jitter and losses.


def durations(link, n_messages, seed=0, sender=0, receiver=1, others=()):
    """How long each of some messages from one node to another takes, with others' traffic in between."""
    network, taken = Network(4, link, seed=seed), []
    for _ in range(n_messages):
        for pair in others:
            network.send(*pair, 50, lambda: None)
        start_ns = network.next_start_ns(sender, receiver)
        network.send(sender, receiver, 100, lambda: None)
        taken.append(network.free_at(sender).send_ns - start_ns)
    return taken


JITTERY = Link(bytes_per_s=1e9, latency_s=1e-6, jitter_s=1e-5)
LOSSY = Link(bytes_per_s=1e9, latency_s=1e-6, loss=0.5, retransmit_s=3e-6)


def test_the_draws_of_one_seed_never_change():
    assert durations(JITTERY, 4) == [2823, 6834, 6920, 6136]
    assert durations(LOSSY, 8) == [1100, 1100, 1100, 5200, 5200, 1100, 5200, 1100]


def test_jitter_adds_less_than_its_bound_and_half_of_it_on_average():
    added = [taken - 1100 for taken in durations(JITTERY, 2000)]
    assert 0 <= min(added) < 100
    assert 9_900 < max(added) < 10_000
    assert abs(sum(added) / 2000 - 5_000) < 5 * 10_000 / math.sqrt(12 * 2000)


def test_a_lost_message_costs_the_time_until_that_is_noticed_and_another_message():
    once_ns, again_ns = 1_100, 1_100 + 3_000
    n_lost = [divmod(taken - once_ns, again_ns) for taken in durations(LOSSY, 2000)]
    assert all(rest == 0 for _, rest in n_lost)
    counts = [number for number, _ in n_lost]
    for number in range(4):  # geometric: half of the messages are lost, half of those again, ...
        share = sum(count >= number for count in counts) / 2000
        assert abs(share - 0.5**number) < 5 * math.sqrt(0.25 / 2000)


def test_without_a_time_of_its_own_a_loss_is_noticed_after_two_latencies_or_a_millisecond():
    for latency_s, noticed_ns in ((0.1, 200_000_000), (1e-6, 1_000_000)):
        link = Link(latency_s=latency_s, loss=0.5)
        once_ns = link.duration_ns(100)
        longer = {taken for taken in durations(link, 50) if taken > once_ns}
        assert min(longer) == 2 * once_ns + noticed_ns


@pytest.mark.parametrize("link", [JITTERY, LOSSY])
def test_a_draw_depends_on_seed_sender_receiver_and_number_alone(link):
    reference = durations(link, 30)
    assert durations(link, 30) == reference
    assert durations(link, 30, others=((2, 3), (1, 2), (3, 0), (0, 3))) == reference
    assert all(durations(link, 30, **other) != reference for other in ({"seed": 1}, {"sender": 2}, {"receiver": 2}))


def test_no_loss_and_no_jitter_is_the_ideal_link():
    assert durations(Link(bytes_per_s=1e9, latency_s=1e-6, retransmit_s=1.0), 3, seed=9) == [1_100] * 3


def test_between_two_links_the_larger_jitter_and_loss_count():
    network = Network(2, Link(jitter_s=0.1, loss=0.2), links={1: Link(jitter_s=0.2, loss=0.1, retransmit_s=0.5)})
    assert network.link_between(0, 1) == Link(jitter_s=0.2, loss=0.2, retransmit_s=0.5)


# Any traffic.

NONE = np.array([], dtype=np.int64)
NODES = st.integers(0, 3)
REQUESTS = st.lists(st.tuples(st.integers(0, 50), NODES, NODES, st.integers(0, 20)), max_size=25)


def link_ns(bytes_a_ns, latency_ns):
    return Link(bytes_per_s=bytes_a_ns * 1e9, latency_s=latency_ns / S)


LINKS = st.builds(link_ns, st.sampled_from([0.5, 1, 3]), st.integers(0, 5))


@given(REQUESTS, LINKS, st.dictionaries(NODES, LINKS))
def test_a_message_starts_as_soon_as_it_is_requested_and_no_earlier_one_holds_its_ports(requests, link, links):
    requests.sort(key=lambda request: request[0])
    spans = deliver(Network(4, link, links=links), requests)
    free_ns = {}
    for (time_ns, sender, receiver, _), (start_ns, end_ns) in zip(requests, spans, strict=True):
        ports = () if sender == receiver else (("send", sender), ("receive", receiver))
        assert all(start_ns >= free_ns.get(port, 0) for port in ports)  # no two overlap on a port
        assert start_ns == max([time_ns, *(free_ns.get(port, 0) for port in ports)])
        free_ns.update(dict.fromkeys(ports, end_ns))


@given(REQUESTS, LINKS, st.randoms(use_true_random=False))
def test_scheduling_the_requests_in_another_order_changes_nothing_but_ties(requests, link, random):
    requests = list({request[0]: request for request in requests}.values())
    shuffled = random.sample(requests, len(requests))
    spans = dict(zip(requests, deliver(Network(4, link), requests), strict=True))
    assert dict(zip(shuffled, deliver(Network(4, link), shuffled), strict=True)) == spans


@given(
    st.lists(st.tuples(NODES, NODES, st.integers(0, 10**13)), max_size=20),
    st.lists(
        st.builds(
            Link,
            bytes_per_s=st.sampled_from([math.inf, 1e9, 125e6, 0.3, 1e6 / 3]) | st.floats(1e-3, 1e12),
            latency_s=st.sampled_from([0.0, 0.1, 1e-9]) | st.floats(0, 10),
        ),
        min_size=4,
        max_size=4,
    ),
)
def test_many_durations_at_once_are_those_of_each_link_between(messages, links):
    network = Network(4, links=dict(enumerate(links)))
    columns = (np.array(column, dtype=np.int64) for column in zip(*messages, strict=True)) if messages else [NONE] * 3
    found = network.durations_ns(*columns).tolist()
    for (sender, receiver, n_bytes), duration_ns in zip(messages, found, strict=True):
        alone_ns = 0 if sender == receiver else network.link_between(sender, receiver).duration_ns(n_bytes)
        assert duration_ns == min(alone_ns, LONGEST_NS)
