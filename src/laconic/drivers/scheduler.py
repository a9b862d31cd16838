"""Rounds that are started in one thread and carried out in others, several at once over transports of their own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from torch import Tensor

from laconic.drivers.gathered import Schema
from laconic.drivers.transport import Transport, carry_out
from laconic.protocol.exchanges import Requests
from laconic.protocol.landing import Landing
from laconic.wire import Encoded

T = TypeVar("T")


class Scheduler:
    """Threads that own a transport each: a lane. Each carries out what is started on it, in the order of the start.

    While one lane waits for other ranks, the next one goes on; only one computes at a time, so that what runs on
    different lanes may count in the same places. Every rank must start the same on the same lanes in the same order.
    """

    def __init__(self, *lanes: Transport) -> None:
        self._baton = Lock()
        self._lanes = [_InTurn(lane, self._baton) for lane in lanes]
        self._threads = [ThreadPoolExecutor(max_workers=1, thread_name_prefix="laconic") for _ in lanes]
        self._last: list[Future[Any] | None] = [None for _ in lanes]  # by lane, what was started last

    def start(self, requests: Requests[T], number: int = 0) -> Future[T]:
        """Start a round on lane `number`, modulo their number; its result, or what it raised, can be awaited."""
        return self.run(partial(carry_out, requests), number)

    def run(self, function: Callable[[Transport], T], number: int) -> Future[T]:
        """Call a function with lane `number`, modulo their number, when all that was started there is over."""
        number %= len(self._lanes)
        return self._submit(number, self._last[number : number + 1], partial(function, self._lanes[number]))

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Call a function when all that was started is over, on every lane; it may use the transports itself."""
        called = self._submit(0, self._last, function)
        self._last = [called for _ in self._last]
        return called

    def _submit(self, number: int, before: Sequence[Future[Any] | None], function: Callable[[], T]) -> Future[T]:
        awaited = [each for each in before if each is not None]

        def in_turn() -> T:
            wait(awaited)
            with self._baton:
                return function()

        self._last[number] = started = self._threads[number].submit(in_turn)
        return started

    def close(self) -> None:
        """Wait for all that was started."""
        for thread in self._threads:
            thread.shutdown()


class _InTurn:
    """A transport that lets other lanes compute while it waits."""

    def __init__(self, transport: Transport, baton: Lock) -> None:
        self._transport, self._baton = transport, baton
        self.rank, self.size = transport.rank, transport.size

    @property
    def link_bytes_per_s(self) -> float | None:
        return self._transport.link_bytes_per_s

    @link_bytes_per_s.setter
    def link_bytes_per_s(self, found: float | None) -> None:
        self._transport.link_bytes_per_s = found

    @property
    def control_bytes(self) -> int:
        return self._transport.control_bytes

    @control_bytes.setter
    def control_bytes(self, n_bytes: int) -> None:
        self._transport.control_bytes = n_bytes

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._baton.release()
        try:
            yield
        finally:
            self._baton.acquire()

    def swap(
        self, outgoing: Mapping[int, Encoded], expected: Sequence[int], purpose: str, landing: Landing | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        frames = self._transport.swap(outgoing, expected, purpose, *(() if landing is None else (landing,)))
        while True:
            with self._waiting():
                arrived = next(frames, None)
            if arrived is None:
                return
            yield arrived

    def receive(
        self, senders: Sequence[int], awaited: Sequence[int], purpose: str, landing: Landing | None = None
    ) -> tuple[int, Encoded]:
        with self._waiting():
            return self._transport.receive(senders, awaited, purpose, *(() if landing is None else (landing,)))

    def all_reduce(self, vector: Tensor, purpose: str, write: Callable[[int, int], object] | None = None) -> None:
        def write_in_turn(start: int, stop: int) -> None:
            assert write is not None
            with self._baton:
                write(start, stop)

        with self._waiting():
            self._transport.all_reduce(vector, purpose, None if write is None else write_in_turn)

    def gather(self, value: Any, purpose: str, schema: Schema, max_bytes: int) -> list[Any]:  # noqa: ANN401 - JSON
        with self._waiting():
            return self._transport.gather(value, purpose, schema, max_bytes)

    def broadcast(self, vector: Tensor) -> None:
        with self._waiting():
            self._transport.broadcast(vector)

    def give_up(self, error: BaseException, purpose: str) -> None:
        with self._waiting():
            self._transport.give_up(error, purpose)

    def close(self) -> None:
        self._transport.close()
