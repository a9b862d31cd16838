"""The asynchronous parameter server of Liu and Zhang, section 4.1: four traces, its closed form, its callbacks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.network import Computation, Link, Message, Network, makespan_ns, rounds, single_server
from laconic.protocol.async_timing import AsyncServer, async_period_s, sync_iteration_s

S = 1_000_000_000  # nanoseconds in a time unit of the paper, here 1 s
MB = 1_000_000


def network_of(n_workers, latency_s, transfer_s):
    return Network(n_workers + 1, Link(bytes_per_s=MB / transfer_s, latency_s=latency_s))


def async_server(network, n_workers, n_updates, *, n_bytes, compute_ns, n_bytes_up=None):
    """The initial `n_updates` updates; models have `n_bytes` bytes, gradients `n_bytes_up` (by default as many)."""
    up = n_bytes if n_bytes_up is None else n_bytes_up
    server = AsyncServer(
        network, n_workers, compute_ns=compute_ns, download_bytes=lambda worker: n_bytes, upload_bytes=lambda worker: up
    )
    return server.run(n_updates)


def trace(latency_s, transfer_s, compute_s, n_updates):
    """(time in s, worker, staleness) of each update; one worker for each element of `compute_s`."""
    updates = async_server(
        network_of(len(compute_s), latency_s, transfer_s),
        len(compute_s),
        n_updates,
        n_bytes=MB,
        compute_ns=lambda worker, step: compute_s[worker] * S,
    )
    return [(update.time_ns / S, update.worker, update.staleness) for update in updates]


def test_one_worker_is_never_stale():
    assert trace(1.0, 2, [4], 4) == [(10, 0, 0), (20, 0, 0), (30, 0, 0), (40, 0, 0)]


def test_three_equal_workers_reach_staleness_two():
    updates = trace(1.0, 2, [4, 4, 4], 12)
    assert [time for time, _, _ in updates] == [10, 13, 16, 20, 23, 26, 30, 33, 36, 40, 43, 46]
    assert [worker for _, worker, _ in updates] == [0, 1, 2] * 4
    assert [staleness for _, _, staleness in updates] == [0, 1] + [2] * 10


def test_a_slow_worker_of_three_is_five_updates_stale():
    expected = [(10, 0, 0), (13, 1, 1), (20, 0, 1), (23, 1, 1), (30, 0, 1), (33, 2, 5)]
    expected += [(36, 1, 2), (40, 0, 2), (46, 1, 1), (50, 0, 1), (56, 1, 1), (59, 2, 5)]
    assert trace(1.0, 2, [4, 4, 20], 12) == expected


def test_four_workers_saturate_the_server():
    updates = trace(1.5, 5, [10] * 4, 12)
    assert [time for time, _, _ in updates] == [23 + 6.5 * place for place in range(12)]
    assert [staleness for _, _, staleness in updates] == [0, 1, 2] + [3] * 9


@pytest.mark.parametrize(
    ("compute_s", "latency_s", "transfer_s", "iteration_s"),
    [([4, 4, 4], 1.0, 2, 22), ([4, 4, 20], 1.0, 2, 38), ([10] * 4, 1.5, 5, 62)],
)
def test_a_synchronous_iteration_with_the_same_server_takes_the_printed_time(
    compute_s, latency_s, transfer_s, iteration_s
):
    n = len(compute_s)
    assert sync_iteration_s(n, latency_s, transfer_s, max(compute_s)) == iteration_s
    steps = rounds(single_server(n, MB), [seconds * S for seconds in compute_s], 3)
    assert makespan_ns(steps, network_of(n, latency_s, transfer_s)) == 3 * iteration_s * S


@given(st.integers(1, 8), st.integers(0, 20), st.integers(1, 20), st.integers(0, 200))
def test_equal_workers_reach_the_period_of_the_closed_form(n, latency, transfer, compute):
    updates = async_server(
        Network(n + 1, Link(bytes_per_s=1e9, latency_s=latency / S)),
        n,
        20 * n,
        n_bytes=transfer,
        compute_ns=lambda worker, step: compute,
    )
    times = [update.time_ns for update in updates]
    period = async_period_s(n, latency, transfer, compute)
    assert times[-1] - times[-1 - n] == period
    assert max(update.staleness for update in updates) <= n - 1


def test_times_may_differ_by_step_and_bytes_by_message():
    network, seen, sizes = Network(2, Link(bytes_per_s=1e9)), [], iter([10, 20, 30])
    server = AsyncServer(
        network,
        1,
        compute_ns=lambda worker, step: 100 * (step + 1),
        download_bytes=lambda worker: next(sizes),
        upload_bytes=lambda worker: 5,
        timed=seen.append,
    )
    assert [update.time_ns for update in server.run(2)] == [115, 340]
    assert [(one.step, one.start_ns, one.end_ns) for one in seen] == [
        (Message(1, 0, 10), 0, 10),
        (Computation(0, 100), 10, 110),
        (Message(0, 1, 5), 110, 115),
        (Message(1, 0, 20), 115, 135),
        (Computation(0, 200), 135, 335),
        (Message(0, 1, 5), 335, 340),
        (Message(1, 0, 30), 340, 370),
    ]


def test_a_model_is_taken_when_its_message_starts_and_each_update_is_reported():
    network, reported = network_of(2, 1.0, 2), []
    server = AsyncServer(
        network,
        2,
        compute_ns=lambda worker, step: 4 * S,
        download_bytes=lambda worker: MB,
        upload_bytes=lambda worker: MB,
        pulled=lambda worker: reported.append(("pulled", worker, network.clock.now_ns / S)),
        on_outcome=lambda update: reported.append((update.outcome, update.worker, network.clock.now_ns / S)),
    )
    server.run(2)
    assert reported[:4] == [("pulled", 0, 0), ("pulled", 1, 3), ("applied", 0, 10), ("pulled", 0, 10)]
    assert reported[4:5] == [("applied", 1, 13)]


def test_several_calls_of_run_give_the_same_updates_as_one():
    def server():
        return AsyncServer(
            network_of(3, 1.0, 2),
            3,
            compute_ns=lambda worker, step: (4 + worker * step) * S,
            download_bytes=lambda worker: MB,
            upload_bytes=lambda worker: MB,
        )

    stepwise, direct = server(), server()
    assert stepwise.run(3) == direct.run(10)[:3]
    assert stepwise.run(10) == direct.run(10)


def test_a_model_is_taken_before_its_message_arrives_even_if_that_takes_no_time():
    updates = async_server(Network(2), 1, 3, n_bytes=MB, compute_ns=lambda worker, step: 1)
    assert [(update.time_ns, update.staleness) for update in updates] == [(1, 0), (2, 0), (3, 0)]


def test_a_server_without_workers_or_without_a_node_is_refused():
    with pytest.raises(ValueError, match="n_workers=0 must be at least 1"):
        async_server(Network(2), 0, 1, n_bytes=1, compute_ns=lambda worker, step: 1)
    with pytest.raises(ValueError, match="the network has 2 nodes; 2 workers and a server need 3"):
        async_server(Network(2), 2, 1, n_bytes=1, compute_ns=lambda worker, step: 1)
