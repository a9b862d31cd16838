"""A plan's numbers from running ranks: what their links carry under the traffic of each layout, and a gradient's time.

A link that carries its bandwidth for one message carries less where many messages share it, and where the processes of
one machine share its processors while they send and receive. So four kinds of traffic are timed, each with small,
medium and large messages: all to one server, one server to all, all to all, and the engine's all-reduce. The bandwidth
follows from the large ones, and the time to start a message from the others: it is what a medium message takes beside
its transfer, and at least what a small one takes. Before each exchange the links rest, as they do while ranks compute.
These are figures of the network and the machines, and know nothing of any method.
"""

import os
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist

from laconic.drivers.distributed.channel import Channel
from laconic.lab.check import links as pair
from laconic.lab.models import OF_TEXT, build
from laconic.network import Link
from laconic.planning.candidate import MeasuredLinks
from laconic.wire import Dense, Encoded, Frame, Header, encode

_SMALL = 64  # elements of a small message
_MEDIUM = 1 << 17
_REST_S = 0.25
_SMALLEST_ELEMENTS, _LARGEST_ELEMENTS = 1 << 10, 1 << 22
_AIM_S = 0.4  # of a large exchange
_REPEATS = 5
_PURPOSE = "to measure the network"

Swap = tuple[Sequence[int], Sequence[int]]
"""The ranks that this rank sends to, and those that it receives from."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRanks:
    """What ranks have measured, the same on all of them."""

    link: Link
    """Between rank 0 and the rank that is farthest or slowest, one message at a time."""
    links: MeasuredLinks
    """What links carry under the traffic of each layout."""
    ranks_per_core: float
    """Ranks on the fullest machine, over its processor cores."""
    compute_s: float | None = None
    """Seconds of one gradient, on all ranks at once; None without a model."""


def measure_network(
    timeout_s: float,
    group: dist.ProcessGroup | None = None,
    *,
    rest_s: float = _REST_S,
    large_s: float = _AIM_S,
    largest: int = _LARGEST_ELEMENTS,
) -> MeasuredRanks:
    """Measure the network between the ranks of a group. Collective; it takes some seconds a rank.

    Args:
        timeout_s: How long to wait for another rank, seconds.
        group: The ranks; None for all.
        rest_s: How long the links rest before each exchange, seconds.
        large_s: About how long an exchange of large messages takes, seconds.
        largest: The most elements of a message that matter: those of the model.

    Raises:
        PeerLostError: A rank is lost.
        RuntimeError: A rank is lost while two ranks measure their link.
    """
    channel = Channel(group, timeout_s, _LARGEST_ELEMENTS)
    largest = max(_SMALLEST_ELEMENTS, min(largest, _LARGEST_ELEMENTS))
    link = _slowest_pair(channel, 4 * largest)
    n = channel.size
    others = [rank for rank in range(n) if rank != channel.rank]
    is_server = channel.rank == 0
    to_server: Swap = ([], others) if is_server else ([0], [])
    from_server: Swap = (others, []) if is_server else ([], [0])
    count = min(largest, _elements(large_s * link.slower_bytes_per_s, n - 1))
    sizes = _SMALL, min(_MEDIUM, max(_SMALL, count // 8)), count
    incoming, outgoing, exchanged = (
        _link([_seconds(channel, partial(_swap, channel, swap, size), rest_s=rest_s) for size in sizes], n - 1, sizes)
        for swap in (to_server, from_server, (others, others))
    )
    ring_s = [_seconds(channel, partial(_all_reduce, channel, n * size), rest_s=rest_s) for size in sizes]
    machines = channel.gather([socket.gethostname(), str(os.cpu_count() or 1)], _PURPOSE, [str], 1 << 10)
    channel.close()
    return MeasuredRanks(
        link=link,
        links=MeasuredLinks(
            server=Link(
                bytes_per_s=outgoing.bytes_per_s, down_bytes_per_s=incoming.bytes_per_s,
                latency_s=(incoming.latency_s + outgoing.latency_s) / 2,
            ),
            all_to_all=exchanged,
            ring=_link(ring_s, 2 * (n - 1), sizes),
        ),
        ranks_per_core=max(machines.count(machine) / int(machine[1]) for machine in machines),
    )  # fmt: skip


def gradient_s(name: str, shape: Sequence[int], n_classes: int, batch_size: int, timeout_s: float) -> float:
    """Return the seconds of one gradient of a model, on all ranks at once: the slowest rank's median. Collective.

    Args:
        name: The model's.
        shape: Of one input.
        n_classes: The number of scores.
        batch_size: The number of inputs.
        timeout_s: How long to wait for another rank, seconds.

    Raises:
        PeerLostError: A rank is lost.
    """
    model = build(name, shape, n_classes, 0)
    if name in OF_TEXT:
        inputs = targets = torch.zeros(batch_size, *shape, dtype=torch.int64)
    else:
        inputs, targets = torch.randn(batch_size, *shape), torch.zeros(batch_size, dtype=torch.int64)
    channel = Channel(None, timeout_s, 1)

    def gradient() -> None:
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.nn.functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten()))

    gradient()
    return _seconds(channel, gradient)


def _slowest_pair(channel: Channel, max_bytes: int) -> Link:
    """Return the link whose figures are each the worst of rank 0's links to the others."""
    found: list[list[float]] = []
    if channel.rank > 0:
        pair.answer(channel.group)
    for peer in range(1, channel.size) if channel.rank == 0 else ():
        of_peer = pair.measure(peer, channel.group, max_bytes)
        found.append([of_peer.latency_s, of_peer.from_bytes_per_s, of_peer.to_bytes_per_s])
    of_rank_0: list[list[float]] = channel.gather(found, _PURPOSE, [[float]], 1 << 20)[0]
    latencies_s, ups, downs = zip(*of_rank_0, strict=True)
    return Link(bytes_per_s=min(ups), down_bytes_per_s=min(downs), latency_s=max(latencies_s))


def _elements(n_bytes: float, n_messages: int) -> int:
    """Return the elements of each of so many messages of together about `n_bytes`."""
    return int(min(_LARGEST_ELEMENTS, max(_SMALLEST_ELEMENTS, n_bytes / n_messages / 4)))


def _swap(channel: Channel, swap: Swap, n_elements: int) -> None:
    to, expected = swap
    outgoing: Mapping[int, Encoded] = {}
    if to:
        frame = Frame(
            header=Header(role="worker", rank=channel.rank, round=0), packet=Dense(values=torch.ones(n_elements))
        )
        outgoing = dict.fromkeys(to, encode(frame))
    for _ in channel.swap(outgoing, expected, _PURPOSE):
        pass


def _all_reduce(channel: Channel, n_elements: int) -> None:
    channel.all_reduce(torch.ones(n_elements), _PURPOSE)


def _seconds(channel: Channel, work: Callable[[], None], *, rest_s: float = 0.0) -> float:
    """Return the median seconds of work that all ranks begin together and the slowest one ends."""
    taken_s = []
    for _ in range(_REPEATS):
        time.sleep(rest_s)
        dist.barrier(channel.group)
        start_s = time.perf_counter()
        work()
        taken_s.append(time.perf_counter() - start_s)
    by_rank: list[list[float]] = channel.gather(taken_s, _PURPOSE, [float], 1 << 12)
    return float(statistics.median(max(each) for each in zip(*by_rank, strict=True)))


def _link(seconds: Sequence[float], n_messages: int, sizes: Sequence[int]) -> Link:
    """Return the link at which messages that one port carries one after the other take as long as was measured.

    Args:
        seconds: Of an exchange of small, of medium and of large messages.
        n_messages: The number of messages that a port carries in each.
        sizes: The elements of each message.
    """
    small_s, medium_s, large_s = (taken_s / n_messages for taken_s in seconds)
    _, medium_bytes, large_bytes = (4 * size for size in sizes)
    slope_s = max((large_s - medium_s) / (large_bytes - medium_bytes), 0.1 * large_s / large_bytes)
    latency_s = max(small_s, medium_s - medium_bytes * slope_s)
    return Link(bytes_per_s=large_bytes / max(large_s - latency_s, 0.5 * large_s), latency_s=latency_s)
