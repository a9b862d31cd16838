"""The communication patterns of synchronous training, and the time that each takes by its closed form.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, sections 1.3.2 to 1.3.4 and 5.1.
Paper -> here: parameter server -> single_server, multi-machine server -> sharded, AllReduce -> ring.
Differs: workers, partitions and slots count from 0.

With l the latency, t the time of the whole vector and n workers, on equal links, where n divides the bytes:

    single_server        2 n (l + t)
    sharded, ring        2 (n-1) (l + t/n)      the paper prints 2 N l + 2 t for N + 1 workers
    ring_unpartitioned   2 (n-1) (l + t)
    gossip_ring          2 (l + t)              n >= 3; one message each way for n = 2

Compression by a factor divides t. Where answers have another size, each way counts its own t once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from laconic.network.message_schedule import Computation, Message, MessageSchedule, Operation
from laconic.network.network import Integers


def single_server(n_workers: int, n_bytes: int, *, n_bytes_down: int | None = None) -> MessageSchedule:
    """Workers 0 to n-1 send to server n; when all have arrived, it answers each, in order.

    Answers carry `n_bytes_down` bytes, by default as many as `n_bytes`. Raises ValueError for fewer than 1
    worker or negative bytes; so do all the schedules here.
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
    """Every worker also serves one partition (multi-server parameter server).

    Phase 1, slot s = 1..n-1: i sends worker i+s that worker's partition. Phase 2, the same slots: i sends
    worker i+s its own partition, once it has it from everyone. In each slot every port carries one message,
    and a worker asks for its next message when its last one is over (`one_at_a_time` says why). Answers are
    partitions of `n_bytes_down` bytes, by default of `n_bytes`.
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
    # An owner's first answer waits for all that came up, and for its own last message up.
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
    """Ring all-reduce: in slot s = 0..2n-3, partition k goes from worker k+s to worker k+s+1.

    The first n-1 slots sum, the others hand the sums on; each message waits for its partition's one before.
    """
    _check_sizes("ring", n_workers, n_bytes)
    n = n_workers
    slot, k = np.divmod(np.arange(n * (2 * n - 2)), n)
    return _relay((k + slot) % n, (k + slot + 1) % n, np.array(partition_bytes(n_bytes, n))[k], n_abreast=n)


def ring_unpartitioned(n_workers: int, n_bytes: int) -> MessageSchedule:
    """The ring with the vector in one piece: one message at a time, while all other links idle."""
    _check_sizes("ring_unpartitioned", n_workers, n_bytes)
    slot = np.arange(2 * n_workers - 2)
    return _relay(slot % n_workers, (slot + 1) % n_workers, np.full(len(slot), n_bytes), n_abreast=1)


def gossip_ring(n_workers: int, n_bytes: int) -> MessageSchedule:
    """One gossip round on a ring: everyone sends to the next worker, then to the one before.

    A worker asks for its second message when its first one is over. Of two workers each has a single neighbor, and
    sends to it once.
    """
    _check_sizes("gossip_ring", n_workers, n_bytes)
    n = n_workers
    steps = () if n == 1 else (1,) if n == 2 else (1, -1)
    i, step = np.tile(np.arange(n), len(steps)), np.repeat(steps, n).astype(np.int64)
    return _relay(i, (i + step) % n, np.full(len(i), n_bytes), n_abreast=n)


def one_at_a_time(messages: Sequence[Message]) -> list[Message]:
    """The same messages, where each also waits for the one that its sender has listed before it.

    A message that is asked for early holds its receiver's port from then on, although its sender is still busy with
    others. Where senders begin at slightly different times, that queue grows with the square of their number.
    """
    last: dict[int, int] = {}
    chained = []
    for place, message in enumerate(messages):
        after = message.after
        before = last.get(message.sender)
        if before is not None:
            # What the one before has waited for need not be named again.
            after = (before,) if messages[before].after == after else (*after, before)
        chained.append(replace(message, after=after))
        last[message.sender] = place
    return chained


def rounds(pattern: Sequence[Operation], compute_ns: Sequence[int], n_rounds: int = 1) -> MessageSchedule:
    """`n_rounds` of synchronous training: worker i computes compute_ns[i], then the pattern's messages go.

    The papers' barriers: nothing is sent before all have computed, and the next round's computations wait for all
    messages. Raises ValueError for fewer than 1 round.
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
    """Sizes of `n_parts` partitions that sum to `n_bytes`.

    Where it does not divide, the first ones are a byte larger. Raises ValueError for fewer than 1 part or
    negative bytes.
    """
    if n_parts < 1:
        raise ValueError(f"partition_bytes: n_parts={n_parts} must be at least 1")
    if n_bytes < 0:
        raise ValueError(f"partition_bytes: n_bytes={n_bytes} must be at least 0")
    smallest, n_larger = divmod(n_bytes, n_parts)
    return tuple(smallest + (part < n_larger) for part in range(n_parts))


@dataclass(frozen=True)
class Pattern:
    """A pattern by name: its schedule, and its closed form from n, latency, and the vector's time up and down."""

    message_schedule: Callable[[int, int], MessageSchedule]
    seconds: Callable[[int, float, float, float], float]
    has_answers: bool = False  # whether what comes back may have another size
    has_server: bool = False  # one node more than the workers


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
    """Seconds of one round of a pattern of PATTERNS on equal links, where n divides the bytes.

    transfer_s: of the whole vector; transfer_down_s: of the answer, for a pattern with servers, by default the same.
    Raises ValueError for another name, fewer than 1 worker, or a time below 0.
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
    """Each message waits for the one `n_abreast` places before it."""
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
