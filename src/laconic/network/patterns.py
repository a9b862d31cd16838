"""The communication patterns of synchronous training, and the time that each takes by its closed form.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, sections 1.3.2 to 1.3.4 and 5.1.
Paper -> here: parameter server -> single_server, multi-machine server -> sharded, AllReduce -> ring.
Differs: workers, partitions and slots count from 0.

With l the latency, t the time of the full vector and n workers, on equal links, where n divides the bytes:

    single_server        2 n (l + t)
    sharded, ring        2 (n-1) (l + t/n)      the paper prints 2 N l + 2 t for N + 1 workers
    ring_unpartitioned   2 (n-1) (l + t)
    gossip_ring          2 (l + t)              n >= 3; one message each way for n = 2

Compression by a factor divides t. Where answers have another size, upload and download each count their own t once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from laconic.network.message_schedule import Computation, Message, MessageSchedule, Operation
from laconic.network.network import Integers


def single_server(n_workers: int, n_bytes: int, *, n_bytes_down: int | None = None) -> MessageSchedule:
    """Return the schedule of a single server: workers 0 to n-1 send to server n, which then answers each in order.

    Args:
        n_workers: Number of workers, n.
        n_bytes: Bytes of the vector.
        n_bytes_down: Bytes of an answer; None for `n_bytes`.

    Raises:
        ValueError: There are fewer than 1 worker, or bytes are negative. So for all schedules here.
    """
    _check_sizes("single_server", n_workers, n_bytes, n_bytes_down)
    n, down = n_workers, n_bytes if n_bytes_down is None else n_bytes_down
    workers = np.arange(n)
    server = np.full(n, n)
    return MessageSchedule.in_columns(
        node=np.concatenate((workers, server)),
        receiver=np.concatenate((server, workers)),
        amount=np.repeat([n_bytes, down], n),
        gate=np.repeat([0, 1], n),
        gates=((), workers),
    )


def sharded(n_workers: int, n_bytes: int, *, n_bytes_down: int | None = None) -> MessageSchedule:
    """Return the schedule of a sharded server: every worker also serves one partition.

    Phase 1, slot s = 1..n-1: worker i sends worker i+s that worker's partition. Phase 2, the same slots: worker i sends
    worker i+s its own partition, once it has received it from all workers. In each slot every port carries one message,
    and a worker requests its next message when its last one is over (`one_at_a_time` says why).

    Args:
        n_workers: Number of workers, n.
        n_bytes: Bytes of the vector, which is partitioned.
        n_bytes_down: Bytes of all answers to one worker; None for `n_bytes`.
    """
    _check_sizes("sharded", n_workers, n_bytes, n_bytes_down)
    n = n_workers
    up = np.array(partition_bytes(n_bytes, n), dtype=np.int64)
    down = up if n_bytes_down is None else np.array(partition_bytes(n_bytes_down, n), dtype=np.int64)
    slot, i = np.divmod(np.arange(n * (n - 1)), n)
    other = (i + slot + 1) % n
    chain = _relay(
        np.concatenate((i, i)), np.concatenate((other, other)), np.concatenate((up[other], down[i])), n_abreast=n
    )
    if n == 1:
        return chain
    # An owner's first answer waits for all uploads to it, and for its own last upload.
    base, slots = len(i), np.arange(n - 1)
    needs = [np.sort(np.append(slots * n + (owner - slots - 1) % n, base - n + owner)) for owner in range(n)]
    gate = chain.gate.copy()
    gate[base : base + n] = len(chain.gate_starts) - 1 + np.arange(n)
    return replace(
        chain,
        gate=gate,
        gate_starts=np.concatenate((chain.gate_starts, chain.gate_starts[-1] + n * np.arange(1, n + 1))),
        gate_steps=np.concatenate((chain.gate_steps, *needs)),
    )


def ring(n_workers: int, n_bytes: int) -> MessageSchedule:
    """Return the schedule of a ring all-reduce: in slot s = 0..2n-3, worker k+s sends partition k to worker k+s+1.

    The first n-1 slots sum, the others pass the sums on. Each message waits for the previous one of its partition.

    Args:
        n_workers: Number of workers, n.
        n_bytes: Bytes of the vector.
    """
    _check_sizes("ring", n_workers, n_bytes)
    n = n_workers
    slot, k = np.divmod(np.arange(n * (2 * n - 2)), n)
    return _relay((k + slot) % n, (k + slot + 1) % n, np.array(partition_bytes(n_bytes, n))[k], n_abreast=n)


def ring_unpartitioned(n_workers: int, n_bytes: int) -> MessageSchedule:
    """Return the schedule of a ring with the complete vector: one message at a time, while all other links are idle."""
    _check_sizes("ring_unpartitioned", n_workers, n_bytes)
    slot = np.arange(2 * n_workers - 2)
    return _relay(slot % n_workers, (slot + 1) % n_workers, np.full(len(slot), n_bytes), n_abreast=1)


def gossip_ring(n_workers: int, n_bytes: int) -> MessageSchedule:
    """Return the schedule of one gossip round on a ring: each worker sends to the next one, then to the previous one.

    A worker requests its second message when its first one is over. With two workers each has a single neighbor, and
    sends to it once.

    Args:
        n_workers: Number of workers.
        n_bytes: Bytes of each message.
    """
    _check_sizes("gossip_ring", n_workers, n_bytes)
    n = n_workers
    steps = () if n == 1 else (1,) if n == 2 else (1, -1)
    i, step = np.tile(np.arange(n), len(steps)), np.repeat(steps, n).astype(np.int64)
    return _relay(i, (i + step) % n, np.full(len(i), n_bytes), n_abreast=n)


def one_at_a_time(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with one more condition: each also waits for the previous message of its sender.

    A message that is requested early occupies its receiver's port from then on, although its sender is still busy with
    others. Where senders begin at slightly different times, that queue grows with the square of their number.

    Args:
        messages: Messages in the order of a schedule.
    """
    last: dict[int, int] = {}
    chained = []
    for place, message in enumerate(messages):
        after = message.after
        before = last.get(message.sender)
        if before is not None:
            # The conditions of the previous message need not be named again.
            after = (before,) if messages[before].after == after else (*after, before)
        chained.append(replace(message, after=after))
        last[message.sender] = place
    return chained


def rounds(pattern: Sequence[Operation], compute_ns: Sequence[int], n_rounds: int = 1) -> MessageSchedule:
    """Return the schedule of rounds of synchronous training: all workers compute, then the messages are sent.

    The barriers are those of the papers: nothing is sent before all workers have computed, and the computations of the
    next round wait for all messages.

    Args:
        pattern: Messages of one round; computations in it are left out.
        compute_ns: How long each worker computes, in nanoseconds.
        n_rounds: Number of rounds.

    Raises:
        ValueError: There are fewer than 1 round.
    """
    if n_rounds < 1:
        raise ValueError(f"rounds: n_rounds={n_rounds} must be at least 1")
    messages, n = [step for step in pattern if isinstance(step, Message)], len(compute_ns)
    steps: list[Operation] = []
    barrier: tuple[int, ...] = ()
    for _ in range(n_rounds):
        base = len(steps)
        steps += [Computation(node, duration_ns, barrier) for node, duration_ns in enumerate(compute_ns)]
        computed = tuple(range(base, base + n))
        for message in messages:
            after = tuple(base + n + place for place in message.after) or computed
            steps.append(replace(message, after=after))
        barrier = tuple(range(base, len(steps)))
    return MessageSchedule.of(steps)


def partition_bytes(n_bytes: int, n_parts: int) -> tuple[int, ...]:
    """Return the sizes of partitions, which add up to `n_bytes`. The first ones may be a byte larger than the others.

    Args:
        n_bytes: Bytes of the vector.
        n_parts: Number of partitions.

    Raises:
        ValueError: There are fewer than 1 part, or bytes are negative.
    """
    if n_parts < 1:
        raise ValueError(f"partition_bytes: n_parts={n_parts} must be at least 1")
    if n_bytes < 0:
        raise ValueError(f"partition_bytes: n_bytes={n_bytes} must be at least 0")
    smallest, n_larger = divmod(n_bytes, n_parts)
    return tuple(smallest + (part < n_larger) for part in range(n_parts))


@dataclass(frozen=True)
class Pattern:
    """A communication pattern: its message schedule, and the closed form of its time."""

    message_schedule: Callable[[int, int], MessageSchedule]
    """Returns the schedule, given the number of workers and the bytes of the vector."""
    seconds: Callable[[int, float, float, float], float]
    """Returns seconds, given the number of workers, the latency, and the times of the vector's upload and download."""
    has_answers: bool = False
    """Whether the download may have another size than the upload."""
    has_server: bool = False
    """Whether there is one node more than the workers."""


PATTERNS = {
    "single-server": Pattern(single_server, lambda n, l, up, down: n * (2 * l + up + down), True, True),  # noqa: E741
    "sharded": Pattern(sharded, lambda n, l, up, down: (n - 1) * (2 * l + (up + down) / n), True),  # noqa: E741
    "ring": Pattern(ring, lambda n, l, t, _: 2 * (n - 1) * (l + t / n)),  # noqa: E741
    "ring-unpartitioned": Pattern(ring_unpartitioned, lambda n, l, t, _: 2 * (n - 1) * (l + t)),  # noqa: E741
    "gossip-ring": Pattern(gossip_ring, lambda n, l, t, _: min(n - 1, 2) * (l + t)),  # noqa: E741
}


def closed_form_s(
    pattern: str, n_workers: int, latency_s: float, transfer_s: float, transfer_down_s: float | None = None
) -> float:
    """Return the seconds of one round on equal links, where the number of workers divides the bytes.

    Args:
        pattern: Name of a pattern in PATTERNS.
        n_workers: Number of workers.
        latency_s: Latency in seconds.
        transfer_s: Seconds to transfer the full vector, latency excluded.
        transfer_down_s: The same for an answer, in a pattern with servers; None for `transfer_s`.

    Raises:
        ValueError: The name is unknown, there are fewer than 1 worker, or a time is negative.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"closed_form_s: pattern={pattern!r} must be one of {', '.join(PATTERNS)}")
    if n_workers < 1:
        raise ValueError(f"closed_form_s: n_workers={n_workers} must be at least 1")
    down_s = transfer_s if transfer_down_s is None else transfer_down_s
    for name, value in (("latency_s", latency_s), ("transfer_s", transfer_s), ("transfer_down_s", down_s)):
        if not value >= 0:
            raise ValueError(f"closed_form_s: {name}={value} must be at least 0")
    chosen = PATTERNS[pattern]
    if down_s != transfer_s and not chosen.has_answers:
        answering = ", ".join(name for name, one in PATTERNS.items() if one.has_answers)
        raise ValueError(f"closed_form_s: {pattern} has no answers of another size; these have: {answering}")
    return chosen.seconds(n_workers, latency_s, transfer_s, down_s)


def _relay(
    sender: Integers,
    receiver: Integers,
    n_bytes: Integers,
    *,
    n_abreast: int,
) -> MessageSchedule:
    """Return the schedule of messages in which each waits for the one `n_abreast` before it."""
    m = len(sender)
    n_awaited = max(m - n_abreast, 0)
    return MessageSchedule(
        sender,
        receiver,
        n_bytes.astype(np.int64),
        np.zeros(m, dtype=np.int64),
        np.maximum(np.arange(m) - n_abreast + 1, 0),
        np.concatenate(([0], np.arange(n_awaited + 1))),
        np.arange(n_awaited),
    )


def _check_sizes(what: str, n_workers: int, n_bytes: int, n_bytes_down: int | None = None) -> None:
    if n_workers < 1:
        raise ValueError(f"{what}: n_workers={n_workers} must be at least 1")
    if n_bytes < 0:
        raise ValueError(f"{what}: n_bytes={n_bytes} must be at least 0")
    if n_bytes_down is not None and n_bytes_down < 0:
        raise ValueError(f"{what}: n_bytes_down={n_bytes_down} must be at least 0 (None: as many as n_bytes)")
