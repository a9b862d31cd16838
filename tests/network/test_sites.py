"""Links whose upload and download differ, and sites that are joined by one line."""

import pytest

from laconic.network import Link, Network, Sites, makespan_ns, ring, sharded, single_server
from support.inputs import over_inputs

S = 1_000_000_000
MB = 1_000_000


def home(up, down, **others):
    return Link(bytes_per_s=up * MB, down_bytes_per_s=down * MB, **others)


@over_inputs(("n", "down", "upload_s"), ((3, 5, 1), (9, 5, 9 / 5), (5, 5, 1), (9, 100, 1)))
def test_a_server_takes_from_as_many_slow_uploads_at_once_as_its_download_carries(n, down, upload_s):
    network = Network(n + 1, home(1, down))
    answers_s = n / 1  # the server's own upload sends them one by one
    assert makespan_ns(single_server(n, MB), network) == pytest.approx((upload_s + answers_s) * S, abs=n)


def test_a_ring_goes_at_the_slower_of_the_two_directions():
    for link in (home(1, 5), home(5, 1)):
        assert makespan_ns(ring(4, 4 * MB), Network(4, link)) == 6 * S


def test_equal_directions_are_one_bandwidth():
    assert home(3, 3) == Link(bytes_per_s=3e6)
    assert not Network(2, home(3, 3)).shares_ports


@pytest.mark.parametrize("sizes", [(2, 3), (4, 1), (2, 2, 1)])
def test_messages_between_sites_share_the_line(sizes):
    """From every node of other sites to a server at the first: the line carries all of them, at its own bandwidth."""
    n = sum(sizes)
    sites = Sites(sizes=sizes, line=Link(bytes_per_s=MB, latency_s=0.25))
    network = Network(n, Link(bytes_per_s=1000 * MB), sites=sites)
    outside = n - sizes[0]
    schedule = single_server(n - 1, MB)[: n - 1]
    messages = [type(one)(n - 1 - one.sender, 0, one.n_bytes) for one in schedule]
    assert makespan_ns(messages, network) == outside * S + S // 4


def test_each_direction_of_the_line_is_its_own():
    sites = Sites(sizes=(2, 2), line=Link(bytes_per_s=MB))
    network = Network(4, Link(bytes_per_s=1000 * MB), sites=sites)
    assert makespan_ns(ring(4, 4 * MB), network) == 6 * S  # in each of 6 steps one message crosses either way
    # Both phases: each of the two nodes of a site exchanges a quarter with each of the two others, 4 MB either way.
    assert makespan_ns(sharded(4, 4 * MB), network) == pytest.approx(8 * S, rel=0.01)


def test_a_fast_line_changes_nothing():
    link = Link(bytes_per_s=MB, latency_s=0.001)
    near = Network(4, link, sites=Sites(sizes=(2, 2), line=Link(bytes_per_s=1000 * MB)))
    for schedule in (ring(4, 4 * MB), sharded(4, 4 * MB), single_server(3, MB)):
        assert makespan_ns(schedule, near) == makespan_ns(schedule, Network(4, link))


def test_a_saved_network_goes_on_with_its_lines():
    sites = Sites(sizes=(1, 1), line=Link(bytes_per_s=MB))
    network, other = (Network(2, Link(bytes_per_s=2 * MB), sites=sites) for _ in range(2))
    network.send(0, 1, MB, lambda: None)
    other.restore(network.saved())
    assert other.ports == network.ports
    assert other.ports.out_ns == [S, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": (4,), "line": Link()}, "two sizes or more"),
        ({"sizes": (4, 0), "line": Link()}, "at least 1"),
        ({"sizes": (1, 1), "line": Link(loss=0.1)}, "no jitter and no loss"),
    ],
)
def test_sites_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sites(**arguments)
    with pytest.raises(ValueError, match="have 4 nodes, and the network has 3"):
        Network(3, sites=Sites(sizes=(2, 2), line=Link()))
