"""`simulate.by_callbacks` in machine code: a heap of ends and releases, and arrays in place of callbacks."""

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
    """Fill the three columns of times, and move the ports' free times (3, n_nodes): send, receive, compute.

    waiters: which steps wait for each gate, ascending; opens: to which gates each step belongs; both in columns
    with the places where each begins. `gate_left` counts down. Times begin at `now_ns`.
    """
    m = len(node)
    # An entry is a time and a step; a step plus m means that its own time has come, not its end.
    heap_ns, heap_step = np.empty(m + 1, np.int64), np.empty(m + 1, np.int64)
    # Not the literal 0: what is called with it would be compiled twice.
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
            elif to != sender:
                start = max(start, max(free_ns[0, sender], free_ns[1, to]))
            end = start + durations_ns[place]
            if to == _NONE:
                free_ns[2, sender] = end
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
        # All of one instant together: what it sets free is requested as listed.
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
    """The first n in rising order, by gaps (Shell, with Ciura's). numpy's own sort takes seconds to compile."""
    for gap in (1750, 701, 301, 132, 57, 23, 10, 4, 1):
        for at in range(gap, n):
            place = indices[at]
            while at >= gap and indices[at - gap] > place:
                indices[at] = indices[at - gap]
                at -= gap
            indices[at] = place


@kernel
def _heap_insert(heap_ns: Integers, heap_step: Integers, size: int, time_ns: Any, step: Any) -> int:  # noqa: ANN401
    """Onto a heap with the earliest first; entries of one time come off in any order."""
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
    """The earliest off the heap."""
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
