"""A transport between the threads of one process: each rank has a queue."""

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Barrier
from typing import Any

from laconic.drivers.gathered import check_sizes, read_gathered
from laconic.protocol.ring_allreduce import ring_parts, ring_sum
from support.deadlines import PATIENCE_S


class ThreadTransport:
    """One rank's connection to the others. See `drivers/transport.py`."""

    def __init__(self, rank: int, queues: list[Queue], shown: list[Any], meeting: Barrier) -> None:
        """`queues` are the ranks' own, and `shown` is what each shows the others when all meet."""
        self.rank, self.size = rank, len(queues)
        self.link_bytes_per_s, self.control_bytes = None, 0
        self.order: Iterable[int] = ()  # the senders whose frames `receive` returns
        self._queues, self._shown, self._meeting = queues, shown, meeting
        self._arrived = defaultdict(deque)  # frames that were not yet expected, by sender

    def swap(self, outgoing, expected, purpose):
        for peer, frame in outgoing.items():
            self._queues[peer].put((self.rank, frame.clone()))
        for peer in expected:
            yield peer, self._next_of(peer)

    def receive(self, senders, awaited, purpose):
        sender = next(self.order)
        assert sender in senders
        return sender, self._next_of(sender)

    def _next_of(self, peer):
        while not self._arrived[peer]:
            sender, frame = self._queues[self.rank].get(timeout=PATIENCE_S)
            self._arrived[sender].append(frame)
        return self._arrived[peer].popleft()

    def all_reduce(self, vector, purpose, write=None):
        for start, stop in ring_parts(vector.numel(), vector.element_size()) if write else ():
            write(start, stop)
        vector.copy_(ring_sum(self._of_all(vector.clone())))

    def gather(self, value, purpose, schema, max_bytes):
        texts = self._of_all(json.dumps(value).encode())
        check_sizes(list(map(len, texts)), max_bytes, purpose)
        return read_gathered(texts, schema, purpose)

    def broadcast(self, vector):
        vector.copy_(self._of_all(vector.clone())[0])

    def _of_all(self, mine):
        self._shown[self.rank] = mine
        self._meeting.wait(PATIENCE_S)
        shown = list(self._shown)
        self._meeting.wait(PATIENCE_S)
        return shown

    def give_up(self, error, purpose):
        """The test fails with the error."""

    def close(self):
        assert not any(self._arrived.values()), "every frame was expected"


def in_threads(task: Callable[[ThreadTransport], Any], n: int) -> list[Any]:
    """`task(transport)` of each of n ranks, in a thread each; returns the results by rank."""
    queues, shown, meeting = [Queue() for _ in range(n)], [None] * n, Barrier(n)
    transports = [ThreadTransport(rank, queues, shown, meeting) for rank in range(n)]
    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(task, transports))
