"""Message schedules as data: who sends what to whom, who computes how long, and after what.

A message schedule is a list of steps, and a step names by index the steps that it waits for. It is stored in columns,
because one round of a thousand workers is two million messages, and each of half of them waits for a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from laconic.network.network import Integers

NO_RECEIVER = -1  # of a computation, in the column of receivers


@dataclass(frozen=True)
class Message:
    """One message."""

    sender: int
    """Number of the node that sends."""
    receiver: int
    """Number of the node that receives."""
    n_bytes: int
    """Bytes of the message."""
    after: tuple[int, ...] = ()
    """Indices, in the schedule, of the steps that must be over before it is requested."""
    at_ns: int = 0
    """Earliest request, in nanoseconds from the start of the schedule."""


@dataclass(frozen=True)
class Computation:
    """One computation of a node. It occupies the node's compute port."""

    node: int
    """Number of the node that computes."""
    duration_ns: int
    """How long it computes, in nanoseconds."""
    after: tuple[int, ...] = ()
    """Indices, in the schedule, of the steps that must be over before it is requested."""
    at_ns: int = 0
    """Earliest request, in nanoseconds from the start of the schedule."""


Operation = Message | Computation


@dataclass(frozen=True)
class TimedOperation:
    """A step with its times, in nanoseconds of the network's clock."""

    step: Operation
    """The message or computation."""
    requested_ns: int
    """When it was requested."""
    start_ns: int
    """When it started."""
    end_ns: int
    """When it was over."""


@dataclass(frozen=True, eq=False)
class MessageSchedule(Sequence[Operation]):
    """m steps in columns of int64.

    A gate is a set of steps that others wait for. Gate g consists of gate_steps[gate_starts[g] : gate_starts[g + 1]];
    gate 0 is empty.
    """

    node: Integers
    """(m,), who sends or computes."""
    receiver: Integers
    """(m,), who receives; NO_RECEIVER for a computation."""
    amount: Integers
    """(m,), bytes of a message, or nanoseconds of a computation."""
    at_ns: Integers
    """(m,), the earliest request, in nanoseconds from the start of the schedule."""
    gate: Integers
    """(m,), the gate that each step waits for."""
    gate_starts: Integers
    """(gates + 1,), where each gate begins in `gate_steps`."""
    gate_steps: Integers
    """Indices of the steps of all gates, in each gate ascending and each once."""

    @classmethod
    def of(cls, steps: Iterable[Operation]) -> MessageSchedule:
        """Return the steps as a message schedule.

        Args:
            steps: Steps in any order; a message schedule is returned unchanged.

        Raises:
            ValueError: A node, size or time is negative, or 2**62 or more; a step waits for one that does not exist;
                or steps wait for each other in a circle. The message names the step.
        """
        if isinstance(steps, MessageSchedule):
            return steps
        listed = list(steps)
        gates: dict[tuple[int, ...], int] = {(): 0}
        # Thousands of messages may share one long tuple: it is checked once.
        gate_of: dict[int, int] = {}
        for place, step in enumerate(listed):
            _check_numbers(place, step)
            if id(step.after) not in gate_of:
                gate_of[id(step.after)] = gates.setdefault(_awaited(place, step, len(listed)), len(gates))
        message_schedule = cls.in_columns(
            node=[step.sender if isinstance(step, Message) else step.node for step in listed],
            receiver=[step.receiver if isinstance(step, Message) else NO_RECEIVER for step in listed],
            amount=[step.n_bytes if isinstance(step, Message) else step.duration_ns for step in listed],
            at_ns=[step.at_ns for step in listed],
            gate=[gate_of[id(step.after)] for step in listed],
            gates=list(gates),
        )
        circle = _circle(message_schedule)
        if circle:
            raise ValueError(_circle_text(circle))
        return message_schedule

    @classmethod
    def in_columns(
        cls,
        *,
        node: Integers | Sequence[int],
        receiver: Integers | Sequence[int],
        amount: Integers | Sequence[int],
        gate: Integers | Sequence[int] | None = None,
        gates: Sequence[Integers | Sequence[int]] = ((),),
        at_ns: Integers | Sequence[int] | None = None,
    ) -> MessageSchedule:
        """Return a message schedule from its columns, unchecked.

        Args:
            node: (m,), who sends or computes.
            receiver: (m,), who receives; NO_RECEIVER for a computation.
            amount: (m,), bytes of a message, or nanoseconds of a computation.
            gate: (m,), the gate that each step waits for; None for gate 0.
            gates: The indices of the steps of each gate, ascending; gate 0 is empty.
            at_ns: (m,), the earliest request in nanoseconds; None for 0.
        """
        assert len(gates[0]) == 0
        starts = np.zeros(len(gates) + 1, dtype=np.int64)
        np.cumsum([len(awaited) for awaited in gates], out=starts[1:])
        awaited = np.concatenate([np.asarray(gate, dtype=np.int64) for gate in gates])
        zeros = np.zeros(len(node), dtype=np.int64)
        return cls(
            np.asarray(node, dtype=np.int64),
            np.asarray(receiver, dtype=np.int64),
            np.asarray(amount, dtype=np.int64),
            zeros if at_ns is None else np.asarray(at_ns, dtype=np.int64),
            zeros if gate is None else np.asarray(gate, dtype=np.int64),
            starts,
            awaited,
        )

    @property
    def is_message(self) -> NDArray[np.bool_]:
        """Which steps are messages, (m,) bool."""
        return np.not_equal(self.receiver, NO_RECEIVER)

    def awaited(self, gate: int) -> tuple[int, ...]:
        """Return the indices of the steps of a gate, ascending."""
        return tuple(self.gate_steps[self.gate_starts[gate] : self.gate_starts[gate + 1]].tolist())

    def __len__(self) -> int:
        return len(self.node)

    def __iter__(self) -> Iterator[Operation]:
        columns = (self.node, self.receiver, self.amount, self.gate, self.at_ns)
        gates: dict[int, tuple[int, ...]] = {}
        for node, receiver, amount, gate, at_ns in zip(*(column.tolist() for column in columns), strict=True):
            if gate not in gates:
                gates[gate] = self.awaited(gate)
            yield _step(node, receiver, amount, gates[gate], at_ns)

    @overload
    def __getitem__(self, place: int) -> Operation: ...
    @overload
    def __getitem__(self, place: slice) -> list[Operation]: ...
    def __getitem__(self, place: int | slice) -> Operation | list[Operation]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        node, receiver, amount = int(self.node[place]), int(self.receiver[place]), int(self.amount[place])
        return _step(node, receiver, amount, self.awaited(int(self.gate[place])), int(self.at_ns[place]))


def _step(node: int, receiver: int, amount: int, after: tuple[int, ...], at_ns: int) -> Operation:
    if receiver == NO_RECEIVER:
        return Computation(node, amount, after, at_ns)
    return Message(node, receiver, amount, after, at_ns)


def _check_numbers(place: int, step: Operation) -> None:
    message = isinstance(step, Message)
    for name in ("sender", "receiver", "n_bytes", "at_ns") if message else ("node", "duration_ns", "at_ns"):
        value = getattr(step, name)
        if not 0 <= value < 2**62:
            bound = "at least 0" if value < 0 else "below 2**62"
            raise ValueError(
                f"{'message' if message else 'computation'} {place} has {name}={value}, which must be {bound}"
            )


def _awaited(place: int, step: Operation, n_steps: int) -> tuple[int, ...]:
    for earlier in step.after:
        if earlier == place:
            raise ValueError(f"step {place} waits for itself; leave that out of its `after`")
        if not 0 <= earlier < n_steps:
            raise ValueError(
                f"step {place} waits for step {earlier}, which must be between 0 and {n_steps - 1} "
                "(steps of the schedule count from 0)"
            )
    return tuple(sorted(set(step.after)))


def _circle(message_schedule: MessageSchedule) -> list[int]:
    """Return the indices of steps that each wait for the next, and the last for the first; empty where none do."""
    if not len(message_schedule.gate_steps):
        return []
    sizes = np.diff(message_schedule.gate_starts)
    last = np.full(len(sizes), -1, dtype=np.int64)
    last[sizes > 0] = message_schedule.gate_steps[message_schedule.gate_starts[1:][sizes > 0] - 1]
    if np.all(last[message_schedule.gate] < np.arange(len(message_schedule))):
        return []  # all steps wait for earlier ones
    over = _all_that_can_run(message_schedule)
    if len(over) == len(message_schedule):
        return []
    # Each remaining step waits for another remaining one, so a walk back from any of them ends in a circle.
    place, seen = next(place for place in range(len(message_schedule)) if place not in over), dict[int, int]()
    while place not in seen:
        seen[place] = len(seen)
        place = next(
            earlier for earlier in message_schedule.awaited(int(message_schedule.gate[place])) if earlier not in over
        )
    return list(seen)[seen[place] :]


def _all_that_can_run(message_schedule: MessageSchedule) -> set[int]:
    """Return the indices of the steps that can run, since they are in no circle and wait for none that is."""
    opens: list[list[int]] = [[] for _ in range(len(message_schedule))]
    waiters: list[list[int]] = [[] for _ in range(len(message_schedule.gate_starts) - 1)]
    n_awaited = np.diff(message_schedule.gate_starts).tolist()
    for gate in range(len(waiters)):
        for place in message_schedule.awaited(gate):
            opens[place].append(gate)
    for place, gate in enumerate(message_schedule.gate.tolist()):
        waiters[gate].append(place)
    able, ready = set[int](), list(waiters[0])
    while ready:
        place = ready.pop()
        able.add(place)
        for gate in opens[place]:
            n_awaited[gate] -= 1
            if n_awaited[gate] == 0:
                ready += waiters[gate]
    return able


def _circle_text(circle: list[int]) -> str:
    shown = [str(place) for place in (circle if len(circle) <= 8 else [*circle[:7], "...", circle[-1]])]
    return (
        f"{len(circle)} steps wait for each other in a circle: {' waits for '.join([*shown, shown[0]])}; "
        "none of them could ever begin"
    )
