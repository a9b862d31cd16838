"""`simulate.by_callbacks` in machine code: a heap of events, and arrays in place of callbacks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.kernels.api import kernel
from laconic.network.message_schedule import NO_RECEIVER
from laconic.network.network import Integers

_NONE = NO_RECEIVER


@kernel
def run_events(
    node: Integers,
    receiver: Integers,
    durations_ns: Integers,
    receive_ns: Integers,
    line_ns: Integers,
    line_latency_ns: int,
    site_of: Integers,
    at_ns: Integers,
    gate: Integers,
    gate_left: Integers,
    waiter_starts: Integers,
    waiters: Integers,
    open_starts: Integers,
    opens: Integers,
    free_ns: NDArray[np.int64],
    now_ns: int,
    requested_ns: Integers,
    start_ns: Integers,
    end_ns: Integers,
) -> None:
    """Compute the times of all m steps of a message schedule.

    Args:
        node: (m,) int64 as all arrays, who sends or computes.
        receiver: (m,), who receives; NO_RECEIVER for a computation.
        durations_ns: (m,), how long each step occupies its ports; where ports are shared, the send port.
        receive_ns: (m,), how long each message occupies the receive port; empty where ports are not shared.
        line_ns: (m,), how long each message between sites occupies a line.
        line_latency_ns: The latency of the line.
        site_of: (n_nodes,), the site of each node.
        at_ns: (m,), the earliest request, counted from `now_ns`.
        gate: (m,), the gate that each step waits for; gate 0 is empty.
        gate_left: (gates,), how many steps each gate still waits for; counted down.
        waiter_starts: (gates + 1,), where the waiters of each gate begin.
        waiters: Indices of the steps that wait for each gate, ascending.
        open_starts: (m + 1,), where the gates of each step begin.
        opens: The gates that each step belongs to.
        free_ns: (5, n_nodes), when the send, receive and compute port of each node is free, and the line of each site
            in the direction of others and of the site; updated.
        now_ns: Time of the start.
        requested_ns: (m,), overwritten.
        start_ns: (m,), overwritten.
        end_ns: (m,), overwritten.
    """
    m = len(node)
    shared = len(receive_ns) > 0
    # An element is a time and a step: the step's end, or, as step + m, its `at_ns`.
    heap_ns, heap_step = np.empty(m + 1, np.int64), np.empty(m + 1, np.int64)
    # Not the literal 0, with which the functions called would be compiled twice.
    size: Any = np.int64(0)
    n_ready: Any = np.int64(0)
    n_awaited = np.zeros(m, np.int8)
    ready = np.empty(m, np.int64)
    for place in range(m):
        if gate[place] > 0:
            n_awaited[place] += 1
        if at_ns[place] > 0:
            n_awaited[place] += 1
            size = _heap_insert(heap_ns, heap_step, size, now_ns + at_ns[place], place + m)
        if n_awaited[place] == 0:
            ready[n_ready] = place
            n_ready += 1
    time_ns = now_ns
    while n_ready > 0 or size > 0:
        _sort(ready, n_ready)
        for number in range(n_ready):
            place = ready[number]
            sender, to = node[place], receiver[place]
            start = time_ns
            if to == _NONE:
                start = max(start, free_ns[2, sender])
            elif to != sender and shared:
                start = max(start, free_ns[0, sender])
            elif to != sender:
                start = max(start, max(free_ns[0, sender], free_ns[1, to]))
            end = start + durations_ns[place]
            if to == _NONE:
                free_ns[2, sender] = end
            elif to != sender and shared:
                free_ns[0, sender] = end
                free_ns[1, to] = max(time_ns, free_ns[1, to]) + receive_ns[place]
                end = max(end, free_ns[1, to])
                here, there = site_of[sender], site_of[to]
                if here != there:
                    free_ns[3, here] = max(time_ns, free_ns[3, here]) + line_ns[place]
                    free_ns[4, there] = max(time_ns, free_ns[4, there]) + line_ns[place]
                    end = max(end, max(free_ns[3, here], free_ns[4, there])) + line_latency_ns
            elif to != sender:
                free_ns[0, sender] = end
                free_ns[1, to] = end
            requested_ns[place] = time_ns
            start_ns[place] = start
            end_ns[place] = end
            size = _heap_insert(heap_ns, heap_step, size, end, place)
        n_ready = np.int64(0)
        if size == 0:
            break
        # All events of one instant together, so that the steps they release are requested in listed order.
        time_ns = heap_ns[0]
        while size > 0 and heap_ns[0] == time_ns:
            step = heap_step[0]
            size = _heap_remove(heap_ns, heap_step, size)
            if step >= m:
                n_ready = _one_less(step - m, n_awaited, ready, n_ready)
                continue
            for position in range(open_starts[step], open_starts[step + 1]):
                opened = opens[position]
                gate_left[opened] -= 1
                if gate_left[opened] == 0:
                    for waiting in range(waiter_starts[opened], waiter_starts[opened + 1]):
                        n_ready = _one_less(waiters[waiting], n_awaited, ready, n_ready)


@kernel
def _one_less(place: int, n_awaited: NDArray[np.int8], ready: Integers, n_ready: int) -> int:
    n_awaited[place] -= 1
    if n_awaited[place] == 0:
        ready[n_ready] = place
        n_ready += 1
    return n_ready


@kernel
def _sort(indices: Integers, n: int) -> None:
    """Sort the first n in place: Shell's sort with Ciura's gaps. The sort of numpy takes seconds to compile."""
    for gap in (1750, 701, 301, 132, 57, 23, 10, 4, 1):
        for at in range(gap, n):
            place = indices[at]
            while at >= gap and indices[at - gap] > place:
                indices[at] = indices[at - gap]
                at -= gap
            indices[at] = place


@kernel
def _heap_insert(heap_ns: Integers, heap_step: Integers, size: int, time_ns: Any, step: Any) -> int:  # noqa: ANN401
    """Insert an element into a heap by time, and return the new size. Elements of one time leave in any order."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap_ns[parent] <= time_ns:
            break
        heap_ns[at], heap_step[at] = heap_ns[parent], heap_step[parent]
        at = parent
    heap_ns[at], heap_step[at] = time_ns, step
    return size + 1


@kernel
def _heap_remove(heap_ns: Integers, heap_step: Integers, size: int) -> int:
    """Remove the earliest element from the heap, and return the new size."""
    size -= 1
    time_ns, step = heap_ns[size], heap_step[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heap_ns[child + 1] < heap_ns[child]:
            child += 1
        if heap_ns[child] >= time_ns:
            break
        heap_ns[at], heap_step[at] = heap_ns[child], heap_step[child]
        at = child
    heap_ns[at], heap_step[at] = time_ns, step
    return size
