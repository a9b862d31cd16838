"""The golden schedules: Liu and Zhang's numbers (section 1.3), closed forms, what each schedule must carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.network import (
    PATTERNS,
    Computation,
    Link,
    Message,
    MessageSchedule,
    Network,
    closed_form_s,
    gossip_ring,
    makespan_ns,
    one_at_a_time,
    partition_bytes,
    ring,
    ring_unpartitioned,
    rounds,
    sharded,
    simulate,
    single_server,
)
from support.inputs import failing_at, over_inputs

S = 1_000_000_000  # nanoseconds in a time unit of the paper, here 1 s
PATTERN_FUNCTIONS = (single_server, ring, ring_unpartitioned, sharded, gossip_ring)


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


def printed_of(message_pattern):
    """What is printed of one schedule: (n, latency, transfer, makespan)."""
    place = PATTERN_FUNCTIONS.index(message_pattern)
    for (latency, transfer), rows in PRINTED.items():
        for n, row in rows.items():
            if row[place] is not None:
                yield n, latency, transfer, row[place]


@pytest.mark.parametrize("message_pattern", PATTERN_FUNCTIONS)
def test_each_printed_time_is_met_to_the_nanosecond(message_pattern):
    for n, latency, transfer, units in printed_of(message_pattern):
        with failing_at(n=n, latency=latency, transfer=transfer):
            n_bytes = 48_000_000  # 2, 3, 4, 8 and 16 divide it, and so do 5, 0.1 and 8 seconds
            link = Link(bytes_per_s=n_bytes / transfer, latency_s=latency)
            assert makespan_ns(message_pattern(n, n_bytes), network_for(n, link)) == round(units * S)


# Closed forms. One byte takes one nanosecond and every n divides the vector, so that nothing is rounded.
L_NS, T_NS = 1_081_080, 720_720  # 720,720 is the least common multiple of 1 to 16
BYTE_A_NS = Link(bytes_per_s=1e9, latency_s=L_NS / S)
NAME_OF = {pattern.message_schedule: name for name, pattern in PATTERNS.items()}


@pytest.mark.parametrize("message_pattern", PATTERN_FUNCTIONS)
@over_inputs("n", range(1, 17))
@over_inputs("kappa", (1, 3))
def test_the_closed_form_holds_and_compression_divides_the_transfer(message_pattern, n, kappa):
    t = 3 * T_NS // kappa
    closed_s = closed_form_s(NAME_OF[message_pattern], n, L_NS / S, t / S)
    assert makespan_ns(message_pattern(n, t), network_for(n, BYTE_A_NS)) == round(closed_s * S)


@pytest.mark.parametrize("message_pattern", PATTERN_FUNCTIONS)
def test_each_printed_time_is_the_closed_form(message_pattern):
    for n, latency, transfer, units in printed_of(message_pattern):
        with failing_at(n=n, latency=latency, transfer=transfer):
            assert closed_form_s(NAME_OF[message_pattern], n, latency, transfer) == pytest.approx(units, rel=1e-9)


@pytest.mark.parametrize("n", [2, 5, 16])
def test_models_and_gradients_of_different_size_each_count_their_own_transfer(n):
    t_g, t_m = 7.0, 2.0
    assert closed_form_s("sharded", n, 1.5, t_g, t_m) == pytest.approx(2 * (n - 1) * 1.5 + (n - 1) / n * (t_m + t_g))
    assert closed_form_s("single-server", n, 1.5, t_g, t_m) == pytest.approx(n * (3 + t_m + t_g))


def test_a_closed_form_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="pattern='star' must be one of single-server, sharded, ring"):
        closed_form_s("star", 2, 1.0, 1.0)
    with pytest.raises(ValueError, match="n_workers=0 must be at least 1"):
        closed_form_s("ring", 0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"latency_s=-1.0 must be at least 0"):
        closed_form_s("ring", 2, -1.0, 1.0)
    with pytest.raises(ValueError, match="ring has no answers of another size; these have: single-server, sharded"):
        closed_form_s("ring", 2, 1.0, 1.0, 2.0)


@over_inputs("n", range(2, 17))
def test_answers_of_another_size_cost_their_own_transfer(n):
    up, down = T_NS, 5 * T_NS
    network = network_for(n, BYTE_A_NS)
    assert makespan_ns(single_server(n, up, n_bytes_down=down), network) == n * (2 * L_NS + up + down)
    expected = 2 * (n - 1) * L_NS + (n - 1) * (up + down) // n
    assert makespan_ns(sharded(n, up, n_bytes_down=down), network_for(n, BYTE_A_NS)) == expected


def test_one_worker_alone_sends_nothing_except_to_its_server():
    assert [len(message_pattern(1, 10)) for message_pattern in (ring, ring_unpartitioned, sharded, gossip_ring)] == [
        0
    ] * 4
    assert list(single_server(1, 10)) == [Message(0, 1, 10), Message(1, 0, 10, after=(0,))]


def test_no_messages_take_no_time():
    assert makespan_ns([], Network(1)) == 0


# What is sent.


def test_the_initial_two_slots_of_a_ring_of_three_by_hand():
    assert ring(3, 10)[:6] == [
        Message(0, 1, 4),
        Message(1, 2, 3),
        Message(2, 0, 3),
        Message(1, 2, 4, after=(0,)),
        Message(2, 0, 3, after=(1,)),
        Message(0, 1, 3, after=(2,)),
    ]


def test_a_sharded_round_of_three_by_hand():
    assert list(sharded(3, 10)) == [
        Message(0, 1, 3),
        Message(1, 2, 3),
        Message(2, 0, 4),
        Message(0, 2, 3, after=(0,)),
        Message(1, 0, 4, after=(1,)),
        Message(2, 1, 3, after=(2,)),
        Message(0, 1, 4, after=(2, 3, 4)),  # both terms of partition 0, and its own last message
        Message(1, 2, 3, after=(0, 4, 5)),
        Message(2, 0, 3, after=(1, 3, 5)),
        Message(0, 2, 4, after=(6,)),
        Message(1, 0, 3, after=(7,)),
        Message(2, 1, 3, after=(8,)),
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
    messages, sizes = list(sharded(n, n_bytes)), partition_bytes(n_bytes, n)
    for worker in range(n):
        sent = sum(message.n_bytes for message in messages if message.sender == worker)
        assert sent == (n_bytes - sizes[worker]) + (n - 1) * sizes[worker]


@pytest.mark.parametrize("message_pattern", [sharded, ring])
@over_inputs("n", (2, 3, 4, 7))
def test_in_each_slot_every_port_carries_one_message(message_pattern, n):
    messages = message_pattern(n, 100)
    for slot in range(2 * (n - 1)):
        of_slot = messages[slot * n : (slot + 1) * n]
        assert sorted(message.sender for message in of_slot) == list(range(n))
        assert sorted(message.receiver for message in of_slot) == list(range(n))


@given(st.integers(0, 10**12), st.integers(1, 200))
def test_partitions_sum_to_the_total_and_the_leading_ones_are_a_byte_larger(n_bytes, n_parts):
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


def test_a_message_schedule_may_be_listed_in_any_order():
    messages = [Message(1, 0, 10, after=(2,)), Message(0, 1, 5, after=(0,)), Message(0, 1, 10)]
    times = simulate(messages, Network(2, Link(bytes_per_s=1e9)))
    assert times.start_ns.tolist() == [10, 20, 0]
    assert times.end_ns.tolist() == [20, 25, 10]


@pytest.mark.parametrize(
    ("afters", "message"),
    [
        ([(), (-1,), ()], "step 1 waits for step -1, which must be between 0 and 2"),
        ([(), (3,), ()], "step 1 waits for step 3, which must be between 0 and 2"),
        ([(), (1,), ()], "step 1 waits for itself"),
        ([(2,), (), (0,)], "2 steps wait for each other in a circle: 0 waits for 2 waits for 0"),
        ([(1,), (2,), (1,)], "2 steps wait for each other in a circle: 1 waits for 2 waits for 1"),
        ([(1,), (2,), (0,)], "3 steps wait for each other in a circle: 0 waits for 1 waits for 2 waits for 0"),
    ],
)
def test_what_could_never_begin_is_refused_before_anything_is_sent(afters, message):
    network = Network(2, Link(bytes_per_s=1e9))
    with pytest.raises(ValueError, match=message):
        makespan_ns([Message(0, 1, 10, after=after) for after in afters], network)
    assert network.free_at(0) == (0, 0, 0)


def test_a_long_circle_is_named_by_its_ends():
    messages = [Message(0, 1, 10, after=((place + 1) % 100,)) for place in range(100)]
    with pytest.raises(ValueError, match=r"100 steps wait .*: 0 waits for 1 .* 6 waits for \.\.\. waits for 99 waits"):
        MessageSchedule.of(messages)


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=10, max_size=10))
def test_a_message_schedule_is_refused_exactly_where_some_step_waits_for_itself_in_the_end(waits):
    reach = [set(after) for after in waits]
    for _ in range(10):
        reach = [after.union(*(reach[place] for place in after)) for after in reach]
    messages = [Message(0, 1, 1, after=tuple(after)) for after in waits]
    if any(place in after for place, after in enumerate(reach)):
        with pytest.raises(ValueError, match=r"waits for itself|wait for each other in a circle"):
            MessageSchedule.of(messages)
    else:
        assert [set(step.after) for step in MessageSchedule.of(messages)] == [set(after) for after in waits]


def test_a_message_the_network_cannot_carry_is_refused_before_anything_is_sent():
    network = Network(2, Link(bytes_per_s=1e9))
    with pytest.raises(ValueError, match=r"message 2 has receiver=2, .* between 0 and 1 \(a single server is"):
        makespan_ns([Message(0, 1, 10), Message(0, 1, 10), Message(0, 2, 10)], network)
    with pytest.raises(ValueError, match="message 1 has n_bytes=-1, which must be at least 0"):
        makespan_ns([Message(0, 1, 10), Message(0, 1, -1)], network)
    with pytest.raises(ValueError, match="computation 0 has node=2, which must be between 0 and 1"):
        makespan_ns([Computation(2, 10)], network)
    assert network.free_at(0) == (0, 0, 0)


@pytest.mark.parametrize("message_pattern", PATTERN_FUNCTIONS)
def test_a_message_schedule_without_workers_or_with_negative_bytes_is_refused_by_name(message_pattern):
    with pytest.raises(ValueError, match=f"{message_pattern.__name__}: n_workers=0 must be at least 1"):
        message_pattern(0, 10)
    with pytest.raises(ValueError, match=f"{message_pattern.__name__}: n_bytes=-1 must be at least 0"):
        message_pattern(2, -1)


@pytest.mark.parametrize("message_pattern", [single_server, sharded])
def test_negative_answers_are_refused(message_pattern):
    with pytest.raises(ValueError, match="n_bytes_down=-1 must be at least 0"):
        message_pattern(2, 10, n_bytes_down=-1)


def test_partitions_of_nothing_or_into_nothing():
    assert partition_bytes(0, 3) == (0, 0, 0)
    with pytest.raises(ValueError, match="n_parts=0 must be at least 1"):
        partition_bytes(10, 0)
    with pytest.raises(ValueError, match="n_bytes=-1 must be at least 0"):
        partition_bytes(-1, 2)


# Computations, rounds, and messages one at a time.


def test_a_step_does_not_begin_before_its_own_time():
    steps = [Message(0, 1, 10, at_ns=5), Computation(1, 7, after=(0,), at_ns=3), Message(1, 0, 10, at_ns=40)]
    times = simulate(steps, Network(2, Link(bytes_per_s=1e9)))
    assert times.requested_ns.tolist() == [5, 15, 40]
    assert times.end_ns.tolist() == [15, 22, 50]


def test_computations_of_one_node_queue_and_do_not_touch_its_ports():
    steps = [Computation(0, 10), Computation(0, 5), Message(0, 1, 3), Computation(1, 4, after=(2,))]
    times = simulate(steps, Network(2, Link(bytes_per_s=1e9)))
    assert times.start_ns.tolist() == [0, 10, 0, 3]
    assert times.end_ns.tolist() == [10, 15, 3, 7]


def test_rounds_compute_send_and_wait_for_all():
    assert list(rounds(gossip_ring(2, 10), [5, 6], 2)) == [
        Computation(0, 5),
        Computation(1, 6),
        Message(0, 1, 10, after=(0, 1)),
        Message(1, 0, 10, after=(0, 1)),
        Computation(0, 5, after=(0, 1, 2, 3)),
        Computation(1, 6, after=(0, 1, 2, 3)),
        Message(0, 1, 10, after=(4, 5)),
        Message(1, 0, 10, after=(4, 5)),
    ]
    with pytest.raises(ValueError, match="n_rounds=0 must be at least 1"):
        rounds(gossip_ring(2, 10), [5, 6], 0)


@pytest.mark.parametrize("message_pattern", PATTERN_FUNCTIONS)
def test_a_round_takes_the_slowest_computation_and_one_exchange(message_pattern):
    exchange_ns = makespan_ns(message_pattern(4, T_NS), network_for(4, BYTE_A_NS))
    trained = rounds(message_pattern(4, T_NS), [10, 30, 20, 10], 3)
    assert makespan_ns(trained, network_for(4, BYTE_A_NS)) == 3 * (30 + exchange_ns)


def test_one_at_a_time_keeps_the_messages_and_adds_only_the_sender_s_own_before():
    both = (0, 1)
    messages = [Message(0, 1, 1), Message(1, 0, 2), Message(0, 2, 3, both), Message(0, 1, 4, both), Message(1, 2, 5)]
    assert one_at_a_time(messages) == [
        Message(0, 1, 1),
        Message(1, 0, 2),
        Message(0, 2, 3, after=(0, 1, 0)),
        Message(0, 1, 4, after=(2,)),
        Message(1, 2, 5, after=(1,)),
    ]


@pytest.mark.parametrize("n", [3, 7, 16])
def test_unequal_partitions_cost_a_sharded_round_no_more_than_equal_ones_of_the_larger_size(n):
    n_bytes = 1_000 * n + 1
    larger_ns = makespan_ns(sharded(n, 1_001 * n), network_for(n, BYTE_A_NS))
    assert makespan_ns(sharded(n, n_bytes), network_for(n, BYTE_A_NS)) <= larger_ns


def test_a_message_schedule_beyond_146_years_is_refused():
    for network in (Network(2, Link(latency_s=3e9)), Network(2, Link(latency_s=1e12))):
        with pytest.raises(ValueError, match="more than 146 years"):
            makespan_ns([Message(0, 1, 1), Message(0, 1, 1)], network)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Message(-1, 0, 1), "message 0 has sender=-1, which must be at least 0"),
        (Message(0, -1, 1), "message 0 has receiver=-1, which must be at least 0"),
        (Message(0, 1, 2**63), r"message 0 has n_bytes=9223372036854775808, which must be below 2\*\*62"),
        (Message(0, 1, 1, at_ns=-5), "message 0 has at_ns=-5, which must be at least 0"),
        (Computation(0, -1), "computation 0 has duration_ns=-1, which must be at least 0"),
        (Computation(-2, 1), "computation 0 has node=-2, which must be at least 0"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_step_and_name(step, message):
    with pytest.raises(ValueError, match=message):
        MessageSchedule.of([step])
