"""The golden schedules: Liu and Zhang's numbers (section 1.3), closed forms, what each schedule must carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.network import Link, Network
from laconic.schedules import (
    Message,
    gossip_ring,
    makespan_ns,
    partition_bytes,
    ring,
    ring_unpartitioned,
    sharded,
    single_server,
)

S = 1_000_000_000  # nanoseconds in a time unit of the paper, here 1 s
SCHEDULES = (single_server, ring, ring_unpartitioned, sharded, gossip_ring)


def network_for(n_workers, link):
    return Network(n_workers + 1, link)  # room for a server; the others leave it idle


# Makespans: n -> single server / ring / ring unpartitioned / sharded / gossip, in time units.
PRINTED = {
    (1.5, 5): {
        2: (26, 8, 13, 8, None),
        3: (39, 12.666666668, 26, 12.666666668, 13),  # 12 2/3: each of 4 slots is rounded up to a whole ns
        4: (52, 16.5, 39, 16.5, 13),
        8: (104, 29.75, 91, 29.75, 13),
        16: (208, 54.375, 195, 54.375, 13),
    },
    (1, 0.1): {
        4: (8.8, 6.15, 6.6, 6.15, 2.2),
        8: (17.6, 14.175, 15.4, 14.175, 2.2),
        16: (35.2, 30.1875, 33, 30.1875, 2.2),
    },
    (0.1, 8): {
        4: (64.8, 12.6, 48.6, 12.6, 16.2),
        8: (129.6, 15.4, 113.4, 15.4, 16.2),
        16: (259.2, 18, 243, 18, 16.2),
    },
}
CASES = [
    pytest.param(schedule, n, latency, transfer, units, id=f"{schedule.__name__}-{n}-{latency}-{transfer}")
    for (latency, transfer), rows in PRINTED.items()
    for n, row in rows.items()
    for schedule, units in zip(SCHEDULES, row, strict=True)
    if units is not None
]


@pytest.mark.parametrize(("schedule", "n", "latency", "transfer", "units"), CASES)
def test_each_printed_time_is_met_to_the_nanosecond(schedule, n, latency, transfer, units):
    n_bytes = 48_000_000  # 2, 3, 4, 8 and 16 divide it, and so do 5, 0.1 and 8 seconds
    link = Link(bytes_per_s=n_bytes / transfer, latency_s=latency)
    assert makespan_ns(schedule(n, n_bytes), network_for(n, link)) == round(units * S)


# Closed forms. One byte takes one nanosecond and every n divides the vector, so that nothing is rounded.
L_NS, T_NS = 1_081_080, 720_720  # 720,720 is the least common multiple of 1 to 16
BYTE_A_NS = Link(bytes_per_s=1e9, latency_s=L_NS / S)
CLOSED_FORMS = {
    single_server: lambda n, t: 2 * n * (L_NS + t),
    ring: lambda n, t: 2 * (n - 1) * (L_NS + t // n),
    ring_unpartitioned: lambda n, t: 2 * (n - 1) * (L_NS + t),
    sharded: lambda n, t: 2 * (n - 1) * (L_NS + t // n),
    gossip_ring: lambda n, t: 2 * (L_NS + t) if n > 2 else L_NS + t,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", range(2, 17))
@pytest.mark.parametrize("kappa", [1, 3])
def test_the_closed_form_holds_and_compression_divides_the_transfer(schedule, n, kappa):
    t = 3 * T_NS // kappa
    assert makespan_ns(schedule(n, t), network_for(n, BYTE_A_NS)) == CLOSED_FORMS[schedule](n, t)


@pytest.mark.parametrize("n", range(2, 17))
def test_answers_of_another_size_cost_their_own_transfer(n):
    up, down = T_NS, 5 * T_NS
    network = network_for(n, BYTE_A_NS)
    assert makespan_ns(single_server(n, up, n_bytes_down=down), network) == n * (2 * L_NS + up + down)
    expected = 2 * (n - 1) * L_NS + (n - 1) * (up + down) // n
    assert makespan_ns(sharded(n, up, n_bytes_down=down), network_for(n, BYTE_A_NS)) == expected


def test_one_worker_alone_sends_nothing_except_to_its_server():
    assert ring(1, 10) == ring_unpartitioned(1, 10) == sharded(1, 10) == gossip_ring(1, 10) == []
    assert single_server(1, 10) == [Message(0, 1, 10), Message(1, 0, 10, after=(0,))]


def test_no_messages_take_no_time():
    assert makespan_ns([], Network(1)) == 0


# What is sent.


def test_the_first_two_slots_of_a_ring_of_three_by_hand():
    assert ring(3, 10)[:6] == [
        Message(0, 1, 4),
        Message(1, 2, 3),
        Message(2, 0, 3),
        Message(1, 2, 4, after=(0,)),
        Message(2, 0, 3, after=(1,)),
        Message(0, 1, 3, after=(2,)),
    ]


def test_a_sharded_round_of_three_by_hand():
    assert sharded(3, 10) == [
        Message(0, 1, 3),
        Message(1, 2, 3),
        Message(2, 0, 4),
        Message(0, 2, 3),
        Message(1, 0, 4),
        Message(2, 1, 3),
        Message(0, 1, 4, after=(2, 4)),
        Message(1, 2, 3, after=(0, 5)),
        Message(2, 0, 3, after=(1, 3)),
        Message(0, 2, 4, after=(2, 4)),
        Message(1, 0, 3, after=(0, 5)),
        Message(2, 1, 3, after=(1, 3)),
    ]


@given(st.integers(1, 20), st.integers(0, 1000))
def test_a_ring_sums_every_partition_over_all_workers_and_hands_the_sum_to_all(n, n_bytes):
    sizes = partition_bytes(n_bytes, n)
    holds = [[{worker} for _ in range(n)] for worker in range(n)]  # whose terms a worker's partition contains
    for place, message in enumerate(ring(n, n_bytes)):
        k = place % n
        assert message.n_bytes == sizes[k]
        holds[message.receiver][k] |= holds[message.sender][k]
    assert all(terms == set(range(n)) for worker in holds for terms in worker)


@given(st.integers(1, 20), st.integers(0, 1000))
def test_every_sharded_worker_sends_all_but_its_own_partition_up_and_its_own_down(n, n_bytes):
    messages, sizes = sharded(n, n_bytes), partition_bytes(n_bytes, n)
    for worker in range(n):
        sent = sum(message.n_bytes for message in messages if message.sender == worker)
        assert sent == (n_bytes - sizes[worker]) + (n - 1) * sizes[worker]


@pytest.mark.parametrize("schedule", [sharded, ring])
@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_in_each_slot_every_port_carries_one_message(schedule, n):
    messages = schedule(n, 100)
    for slot in range(2 * (n - 1)):
        of_slot = messages[slot * n : (slot + 1) * n]
        assert sorted(message.sender for message in of_slot) == list(range(n))
        assert sorted(message.receiver for message in of_slot) == list(range(n))


@given(st.integers(0, 10**12), st.integers(1, 200))
def test_partitions_sum_to_the_whole_and_the_first_are_a_byte_larger(n_bytes, n_parts):
    sizes = partition_bytes(n_bytes, n_parts)
    assert len(sizes) == n_parts
    assert sum(sizes) == n_bytes
    assert sizes[0] - sizes[-1] in (0, 1)
    assert list(sizes) == sorted(sizes, reverse=True)


# The makespan.


def test_messages_set_free_at_one_instant_are_requested_as_listed():
    # Messages 0 and 1 arrive together. Message 2 waits for the one that the clock delivers second; listed
    # before message 3, it still gets the port of node 2 first, and then message 4 need not wait.
    messages = [
        Message(0, 1, 10),
        Message(1, 0, 10),
        Message(0, 2, 10, after=(1,)),
        Message(1, 2, 50, after=(0,)),
        Message(0, 3, 10, after=(2,)),
    ]
    assert makespan_ns(messages, Network(4, Link(bytes_per_s=1e9))) == 10 + 10 + 50


def test_a_makespan_counts_from_now_and_not_beyond_the_last_message():
    network = Network(2, Link(bytes_per_s=1e9))
    network.clock.run(until_ns=100)
    network.clock.at(1000, lambda: None)
    assert makespan_ns([Message(0, 1, 10)], network) == 10


def test_naming_one_message_twice_is_waiting_for_it_once():
    messages = [Message(0, 1, 10), Message(1, 0, 10, after=(0, 0))]
    assert makespan_ns(messages, Network(2, Link(bytes_per_s=1e9))) == 20


@pytest.mark.parametrize("earlier", [-1, 1, 2])
def test_waiting_for_oneself_or_a_later_message_is_refused_before_anything_is_sent(earlier):
    network = Network(2, Link(bytes_per_s=1e9))
    messages = [Message(0, 1, 10), Message(1, 0, 10, after=(earlier,)), Message(0, 1, 10)]
    with pytest.raises(ValueError, match=f"message 1 waits for message {earlier}, which must come before it"):
        makespan_ns(messages, network)
    assert network.free_at(0) == (0, 0)


def test_a_message_the_network_cannot_carry_is_refused_before_anything_is_sent():
    network = Network(2, Link(bytes_per_s=1e9))
    with pytest.raises(ValueError, match=r"message 2 has receiver=2, .* between 0 and 1 \(a single server is"):
        makespan_ns([Message(0, 1, 10), Message(0, 1, 10), Message(0, 2, 10)], network)
    with pytest.raises(ValueError, match="message 1 has n_bytes=-1, which must be at least 0"):
        makespan_ns([Message(0, 1, 10), Message(0, 1, -1)], network)
    assert network.free_at(0) == (0, 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_without_workers_or_with_negative_bytes_is_refused_by_name(schedule):
    with pytest.raises(ValueError, match=f"{schedule.__name__}: n_workers=0 must be at least 1"):
        schedule(0, 10)
    with pytest.raises(ValueError, match=f"{schedule.__name__}: n_bytes=-1 must be at least 0"):
        schedule(2, -1)


@pytest.mark.parametrize("schedule", [single_server, sharded])
def test_negative_answers_are_refused(schedule):
    with pytest.raises(ValueError, match="n_bytes_down=-1 must be at least 0"):
        schedule(2, 10, n_bytes_down=-1)


def test_partitions_of_nothing_or_into_nothing():
    assert partition_bytes(0, 3) == (0, 0, 0)
    with pytest.raises(ValueError, match="n_parts=0 must be at least 1"):
        partition_bytes(10, 0)
    with pytest.raises(ValueError, match="n_bytes=-1 must be at least 0"):
        partition_bytes(-1, 2)
