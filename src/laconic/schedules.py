"""Who sends what to whom, and after what: the communication patterns of synchronous training, as plain lists.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, sections 1.3.2 to 1.3.4 and 5.1.
Paper -> here: parameter server -> single_server, multi-machine server -> sharded, AllReduce -> ring.
Differs: workers, partitions and slots count from 0.

With l the latency, t the time of the whole vector and n workers, on equal links, where n divides the bytes:

    single_server        2 n (l + t)
    sharded, ring        2 (n-1) (l + t/n)      the paper prints 2 N l + 2 t for N + 1 workers
    ring_unpartitioned   2 (n-1) (l + t)
    gossip_ring          2 (l + t)              n >= 3; one message each way for n = 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from laconic.network import Network


@dataclass(frozen=True)
class Message:
    """One message of a schedule.

    `after` holds the places, in the list, of those that must have arrived before this one may be requested.
    """

    sender: int
    receiver: int
    n_bytes: int
    after: tuple[int, ...] = ()


def single_server(n_workers: int, n_bytes: int, *, n_bytes_down: int | None = None) -> list[Message]:
    """Workers 0 to n-1 send to server n; when all have arrived, it answers each, in order.

    Answers carry `n_bytes_down` bytes, by default as many as `n_bytes`. Raises ValueError for fewer than 1
    worker or negative bytes; so do all the schedules here.
    """
    _check_sizes("single_server", n_workers, n_bytes, n_bytes_down)
    down = n_bytes if n_bytes_down is None else n_bytes_down
    server, everyone = n_workers, tuple(range(n_workers))
    up = [Message(worker, server, n_bytes) for worker in everyone]
    return up + [Message(server, worker, down, after=everyone) for worker in everyone]


def sharded(n_workers: int, n_bytes: int, *, n_bytes_down: int | None = None) -> list[Message]:
    """Every worker also serves one partition (multi-server parameter server).

    Phase 1, slot s = 1..n-1: i sends worker i+s that worker's partition. Phase 2, the same slots: i sends
    worker i+s its own partition, once it has it from everyone. In each slot every port carries one message.
    Answers are partitions of `n_bytes_down` bytes, by default of `n_bytes`.
    """
    _check_sizes("sharded", n_workers, n_bytes, n_bytes_down)
    n = n_workers
    up = partition_bytes(n_bytes, n)
    down = up if n_bytes_down is None else partition_bytes(n_bytes_down, n)
    pairs = [(i, (i + slot) % n) for slot in range(1, n) for i in range(n)]
    gather = [Message(i, owner, up[owner]) for i, owner in pairs]
    into: list[list[int]] = [[] for _ in range(n)]
    for place, (_, owner) in enumerate(pairs):
        into[owner].append(place)
    complete = [tuple(places) for places in into]
    return gather + [Message(owner, i, down[owner], after=complete[owner]) for owner, i in pairs]


def ring(n_workers: int, n_bytes: int) -> list[Message]:
    """Ring all-reduce: in slot s = 0..2n-3, partition k goes from worker k+s to worker k+s+1.

    The first n-1 slots sum, the others hand the sums on; each message waits for its partition's one before.
    """
    _check_sizes("ring", n_workers, n_bytes)
    n, sizes = n_workers, partition_bytes(n_bytes, n_workers)
    return [
        Message((k + slot) % n, (k + slot + 1) % n, sizes[k], after=((slot - 1) * n + k,) if slot else ())
        for slot in range(2 * n - 2)
        for k in range(n)
    ]


def ring_unpartitioned(n_workers: int, n_bytes: int) -> list[Message]:
    """The ring with the vector in one piece: one message at a time, while all other links idle."""
    _check_sizes("ring_unpartitioned", n_workers, n_bytes)
    n = n_workers
    return [Message(slot % n, (slot + 1) % n, n_bytes, after=(slot - 1,) if slot else ()) for slot in range(2 * n - 2)]


def gossip_ring(n_workers: int, n_bytes: int) -> list[Message]:
    """One gossip round on a ring: everyone sends to the next worker, then to the one before.

    Of two workers each has a single neighbour, and sends to it once.
    """
    _check_sizes("gossip_ring", n_workers, n_bytes)
    n = n_workers
    steps = () if n == 1 else (1,) if n == 2 else (1, -1)
    return [Message(i, (i + step) % n, n_bytes) for step in steps for i in range(n)]


def partition_bytes(n_bytes: int, n_parts: int) -> tuple[int, ...]:
    """Sizes of `n_parts` partitions that sum to `n_bytes`.

    Where it does not divide, the first ones are a byte larger. Raises ValueError for fewer than 1 part or
    negative bytes.
    """
    if n_parts < 1:
        raise ValueError(f"partition_bytes: n_parts={n_parts} must be at least 1")
    if n_bytes < 0:
        raise ValueError(f"partition_bytes: n_bytes={n_bytes} must be at least 0")
    least, n_larger = divmod(n_bytes, n_parts)
    return tuple(least + (part < n_larger) for part in range(n_parts))


def makespan_ns(messages: Sequence[Message], network: Network) -> int:
    """Nanoseconds from now until the last message has arrived; runs the network's clock to its end.

    A message is requested when all in its `after` have arrived; those of one instant are requested as listed.
    Raises ValueError, before anything is sent, if a message names a node that the network lacks, has negative
    bytes, or waits for one that is not listed before it.
    """
    _check_runnable(messages, network)
    clock = network.clock
    start_ns = last_ns = clock.now_ns
    n_awaited = [len(set(message.after)) for message in messages]
    waiting = _waiting_for_each(messages)
    ready = [place for place, count in enumerate(n_awaited) if count == 0]

    def request() -> None:
        places = sorted(ready)
        ready.clear()
        for place in places:
            message = messages[place]
            network.send(message.sender, message.receiver, message.n_bytes, partial(arrive, place))

    def arrive(place: int) -> None:
        nonlocal last_ns
        last_ns = clock.now_ns
        for later in waiting[place]:
            n_awaited[later] -= 1
            if n_awaited[later] == 0:
                if not ready:
                    # Not at once: others may arrive at this same instant, and what they set free may be
                    # listed earlier. They are on the clock already, so this callback comes after all of them.
                    clock.after(0, request)
                ready.append(later)

    request()
    clock.run()
    return last_ns - start_ns


def _waiting_for_each(messages: Sequence[Message]) -> list[list[int]]:
    waiting: list[list[int]] = [[] for _ in messages]
    for place, message in enumerate(messages):
        for earlier in set(message.after):
            waiting[earlier].append(place)
    return waiting


def _check_sizes(what: str, n_workers: int, n_bytes: int, n_bytes_down: int | None = None) -> None:
    if n_workers < 1:
        raise ValueError(f"{what}: n_workers={n_workers} must be at least 1")
    if n_bytes < 0:
        raise ValueError(f"{what}: n_bytes={n_bytes} must be at least 0")
    if n_bytes_down is not None and n_bytes_down < 0:
        raise ValueError(f"{what}: n_bytes_down={n_bytes_down} must be at least 0 (None: as many as n_bytes)")


def _check_runnable(messages: Sequence[Message], network: Network) -> None:
    for place, message in enumerate(messages):
        for name, node in (("sender", message.sender), ("receiver", message.receiver)):
            if not 0 <= node < network.n_nodes:
                raise ValueError(
                    f"makespan_ns: message {place} has {name}={node}, which must be between 0 and "
                    f"{network.n_nodes - 1} (a single server is one node more than the workers)"
                )
        if message.n_bytes < 0:
            raise ValueError(f"makespan_ns: message {place} has n_bytes={message.n_bytes}, which must be at least 0")
        for earlier in message.after:
            if not 0 <= earlier < place:
                raise ValueError(
                    f"makespan_ns: message {place} waits for message {earlier}, which must come before it "
                    "(places count from 0; put each message after all that it waits for)"
                )
