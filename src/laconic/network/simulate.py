"""Run a message schedule on a network: when each step is requested, starts and ends.

A step is requested when all steps that it waits for are over and its `at_ns` has come. Steps of one instant are
requested in listed order. `network` states the rule for what follows. Two engines apply it with equal results:
callbacks on the network's clock, and machine code for large schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from laconic.kernels.api import numba_available
from laconic.network.message_schedule import NO_RECEIVER, MessageSchedule, Operation, TimedOperation
from laconic.network.network import LONGEST_NS, Integers, Network

# Below this many steps, the callbacks are faster than loading the machine code.
COMPILED_FROM = 3_000


@dataclass(frozen=True)
class OperationTimes:
    """The times of all m steps, in nanoseconds of the network's clock."""

    requested_ns: Integers
    """(m,) int64, when each step was requested."""
    start_ns: Integers
    """(m,) int64, when it started."""
    end_ns: Integers
    """(m,) int64, when it was over."""

    def of(self, message_schedule: MessageSchedule) -> list[TimedOperation]:
        """Return the steps of the schedule, each with its times."""
        columns = (self.requested_ns.tolist(), self.start_ns.tolist(), self.end_ns.tolist())
        return [TimedOperation(step, *times) for step, *times in zip(message_schedule, *columns, strict=True)]


def makespan_ns(steps: Sequence[Operation], network: Network) -> int:
    """Return the nanoseconds from now until the last step is over. Arguments and exceptions as for `simulate`."""
    start_ns = network.clock.now_ns
    return int(simulate(steps, network).end_ns.max(initial=start_ns)) - start_ns


def simulate(steps: Sequence[Operation], network: Network) -> OperationTimes:
    """Run the steps from now on, and the network's clock until it has no callback left.

    Args:
        steps: Messages and computations, or a message schedule.
        network: The network to run them on.

    Raises:
        ValueError: `MessageSchedule.of` refuses the steps, a node does not exist, or times exceed 146 years.
    """
    message_schedule = MessageSchedule.of(steps)
    _check_nodes(message_schedule, network)
    idle = network.clock.next_ns is None
    if len(message_schedule) >= COMPILED_FROM and idle and not network.is_random and numba_available():
        return by_machine_code(message_schedule, network)
    return by_callbacks(message_schedule, network)


def by_callbacks(message_schedule: MessageSchedule, network: Network) -> OperationTimes:
    """Run a schedule with a callback on the network's clock for each request and each end."""
    clock, now_ns = network.clock, network.clock.now_ns
    nodes, receivers, amounts = (
        message_schedule.node.tolist(),
        message_schedule.receiver.tolist(),
        message_schedule.amount.tolist(),
    )
    requested_ns, start_ns, end_ns = ([now_ns] * len(message_schedule) for _ in range(3))
    gate_left = np.diff(message_schedule.gate_starts).tolist()
    opened_by = _lists(*_columns(message_schedule.gate, len(gate_left)))
    opens = _lists(*_gate_columns(message_schedule))
    # A step with an `at_ns` waits for that time too.
    n_awaited = np.add(message_schedule.gate > 0, message_schedule.at_ns > 0, dtype=np.int64).tolist()
    ready: list[int] = []

    def request() -> None:
        indices = sorted(ready)
        ready.clear()
        for place in indices:
            node, receiver, over = nodes[place], receivers[place], partial(end, place)
            requested_ns[place] = clock.now_ns
            if receiver == NO_RECEIVER:
                start_ns[place] = max(clock.now_ns, network.ports.compute_ns[node])
                network.compute(node, amounts[place], over)
            else:
                start_ns[place] = network.next_start_ns(node, receiver)
                network.send(node, receiver, amounts[place], over)

    def end(place: int) -> None:
        end_ns[place] = clock.now_ns
        for gate in opens[place]:
            gate_left[gate] -= 1
            if gate_left[gate] == 0:
                for waiting in opened_by[gate]:
                    one_less(waiting)

    def one_less(place: int) -> None:
        n_awaited[place] -= 1
        if n_awaited[place] == 0:
            if not ready:
                # Not at once: other steps may end at this instant, and the steps that they release may be
                # listed earlier. They are on the clock already, so this callback runs after all of them.
                clock.after(0, request)
            ready.append(place)

    for place in np.flatnonzero(message_schedule.at_ns).tolist():
        clock.at(now_ns + int(message_schedule.at_ns[place]), partial(one_less, place))
    ready += [place for place, count in enumerate(n_awaited) if count == 0]
    request()
    clock.run()
    if max(end_ns, default=0) > LONGEST_NS:
        raise ValueError(_TOO_LONG)
    return OperationTimes(*(np.array(times, dtype=np.int64) for times in (requested_ns, start_ns, end_ns)))


def by_machine_code(message_schedule: MessageSchedule, network: Network) -> OperationTimes:
    """Run a schedule in machine code, on a network without jitter and losses whose clock has no callbacks."""
    from laconic.network.event_loop import run_events  # only where it is needed: numba takes a second

    assert network.clock.next_ns is None
    assert not network.is_random
    now_ns, ports = network.clock.now_ns, network.ports
    durations_ns = message_schedule.amount.copy()
    of = message_schedule.is_message
    messages = message_schedule.node[of], message_schedule.receiver[of], message_schedule.amount[of]
    receive_ns = line_ns = np.zeros(0, dtype=np.int64)
    if network.shares_ports:
        receive_ns, line_ns = np.zeros_like(durations_ns), np.zeros_like(durations_ns)
        durations_ns[of], receive_ns[of], line_ns[of] = network.shared_durations_ns(*messages)
    else:
        durations_ns[of] = network.durations_ns(*messages)
    line_latency_ns = network.line.duration_ns(0)
    free_ns = np.zeros((5, network.n_nodes), dtype=np.int64)
    for row, times_ns in enumerate(ports.columns()):
        free_ns[row, : len(times_ns)] = times_ns
    last_ns = max(now_ns, int(free_ns.max())) + int(message_schedule.at_ns.max(initial=0))
    taken_ns = sum(float(part.sum(dtype=np.float64)) for part in (durations_ns, receive_ns, line_ns))
    if last_ns + taken_ns + len(message_schedule) * line_latency_ns > LONGEST_NS:
        raise ValueError(_TOO_LONG)
    n_gates = len(message_schedule.gate_starts) - 1
    times = OperationTimes(*(np.full(len(message_schedule), now_ns, dtype=np.int64) for _ in range(3)))
    run_events(
        message_schedule.node, message_schedule.receiver, durations_ns, receive_ns, line_ns, line_latency_ns,
        np.array(network.site_of, dtype=np.int64), message_schedule.at_ns,
        message_schedule.gate, np.diff(message_schedule.gate_starts), *_columns(message_schedule.gate, n_gates),
        *_gate_columns(message_schedule), free_ns, now_ns, times.requested_ns, times.start_ns, times.end_ns,
    )  # fmt: skip
    for column, row in zip((ports.send_ns, ports.receive_ns, ports.compute_ns), free_ns[:3], strict=True):
        column[:] = row.tolist()
    for column, row in zip((ports.out_ns, ports.in_ns), free_ns[3:], strict=True):
        column[:] = row[: len(column)].tolist()
    network.clock.run(int(times.end_ns.max(initial=now_ns)))
    return times


_TOO_LONG = "the schedule takes more than 146 years, which is more nanoseconds than can be counted; check the units"


def _check_nodes(message_schedule: MessageSchedule, network: Network) -> None:
    for name, column in (("sender", message_schedule.node), ("receiver", message_schedule.receiver)):
        wrong = np.flatnonzero(column >= network.n_nodes)
        if len(wrong):
            place = int(wrong[0])
            is_message = bool(message_schedule.is_message[place])
            raise ValueError(
                f"{'message' if is_message else 'computation'} {place} has {name if is_message else 'node'}="
                f"{column[place]}, which must be between 0 and {network.n_nodes - 1} "
                "(a single server is one node more than the workers)"
            )


def _columns(group: Integers, n_groups: int) -> tuple[Integers, Integers]:
    """Return (starts, indices): group g consists of indices[starts[g] : starts[g + 1]], ascending."""
    starts = np.zeros(n_groups + 1, dtype=np.int64)
    np.cumsum(np.bincount(group, minlength=n_groups), out=starts[1:])
    return starts, np.argsort(group, kind="stable")


def _gate_columns(message_schedule: MessageSchedule) -> tuple[Integers, Integers]:
    """Return (starts, gates): step p belongs to gates[starts[p] : starts[p + 1]]."""
    starts, order = _columns(message_schedule.gate_steps, len(message_schedule))
    gates = np.repeat(np.arange(len(message_schedule.gate_starts) - 1), np.diff(message_schedule.gate_starts))
    return starts, gates[order]


def _lists(starts: Integers, values: Integers) -> list[list[int]]:
    flat, ends = values.tolist(), starts.tolist()
    return [flat[start:end] for start, end in pairwise(ends)]
