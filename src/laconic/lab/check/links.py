"""Bandwidth and latency between rank 0 and another rank, over gloo as in training, measured with rank 0's clock."""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

_PINGS = 10
_MIN_BYTES = 1 << 14
_MAX_BYTES = 1 << 26
_ENOUGH_S = 0.2  # of a message whose bandwidth counts
_AIM_S = 0.4
_TO, _FROM, _END = 0, 1, 2


@dataclass(frozen=True)
class MeasuredLink:
    """The link between rank 0 and another rank."""

    latency_s: float
    """Half of the fastest round trip."""
    to_bytes_per_s: float
    """To the other rank."""
    from_bytes_per_s: float
    """From the other rank."""
    clock_ahead_s: float
    """By how much the other machine's clock is ahead of rank 0's."""


def measure(peer: int, group: dist.ProcessGroup | None = None, max_bytes: int = _MAX_BYTES) -> MeasuredLink:
    """Measure the link to a rank, which calls `answer`, in about a second. Raises RuntimeError if it is lost.

    Args:
        peer: The other rank in the group.
        group: The ranks of gloo that both are in; None for all.
        max_bytes: The longest message.
    """
    group = group or dist.group.WORLD
    assert group is not None, "ranks are connected"
    peer = dist.get_global_rank(group, peer)
    ping, pong = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    fastest_s, ahead_s = float("inf"), 0.0
    for _ in range(_PINGS):
        start_s, start = time.time(), time.perf_counter()
        dist.send(ping, peer, group)
        dist.recv(pong, peer, group)
        took_s = time.perf_counter() - start
        if took_s < fastest_s:
            fastest_s, ahead_s = took_s, float(pong) - start_s - took_s / 2
    to, back = (_bandwidth(peer, group, direction, fastest_s, max_bytes) for direction in (_TO, _FROM))
    dist.send(torch.tensor([_END, 0]), peer, group)
    return MeasuredLink(latency_s=fastest_s / 2, to_bytes_per_s=to, from_bytes_per_s=back, clock_ahead_s=ahead_s)


def _bandwidth(peer: int, group: dist.ProcessGroup, direction: int, round_trip_s: float, max_bytes: int) -> float:
    """Return bytes per second of a message that is large enough to measure, after smaller ones."""
    n_bytes = _MIN_BYTES
    while True:
        data, end = torch.zeros(n_bytes, dtype=torch.uint8), torch.zeros(1)
        start = time.perf_counter()
        dist.send(torch.tensor([direction, n_bytes]), peer, group)
        if direction == _TO:
            dist.send(data, peer, group)
            dist.recv(end, peer, group)
        else:
            dist.recv(data, peer, group)
        took_s = max(time.perf_counter() - start - round_trip_s, 1e-6)
        if took_s >= _ENOUGH_S or n_bytes >= max_bytes:
            return n_bytes / took_s
        n_bytes = min(max_bytes, int(n_bytes * min(8.0, max(2.0, _AIM_S / took_s))))


def answer(group: dist.ProcessGroup | None = None) -> None:
    """Take part in the measurement of the link to this rank. Raises RuntimeError if rank 0 of the group is lost."""
    group = group or dist.group.WORLD
    assert group is not None, "ranks are connected"
    root = dist.get_global_rank(group, 0)
    ping, order = torch.zeros(1, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    for _ in range(_PINGS):
        dist.recv(ping, root, group)
        dist.send(torch.tensor([time.time()], dtype=torch.float64), root, group)
    while True:
        dist.recv(order, root, group)
        direction, n_bytes = map(int, order)
        if direction == _END:
            return
        data = torch.zeros(min(n_bytes, _MAX_BYTES), dtype=torch.uint8)
        if direction == _TO:
            dist.recv(data, root, group)
            dist.send(torch.zeros(1), root, group)
        else:
            dist.send(data, root, group)
