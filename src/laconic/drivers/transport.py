"""What the ranks of a job need to reach each other, and how the requests of a round are carried out over it.

Ranks are those of the job's group, and each is one node of the layout.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

from laconic.drivers.gathered import Schema
from laconic.protocol.exchanges import Receive, Requests, Sum
from laconic.protocol.landing import Landing
from laconic.wire import Encoded


class Transport(Protocol):
    """One rank's connection to the others. Every rank calls the same collective methods in the same order."""

    rank: int
    size: int
    """Number of ranks."""
    link_bytes_per_s: float | None
    """Of the slowest large message in the last swap that had one."""
    control_bytes: int
    """Sent by this rank in collectives that belong to no exchange of the method."""

    def swap(
        self, outgoing: Mapping[int, Encoded], expected: Sequence[int], purpose: str, landing: Landing | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        """Send each peer its frame, and yield one frame from each of `expected` with its rank, as they come.

        The caller has to use up the iterator. A rank that is missing from it was not delivered. No frame may depend on
        one of the same swap: an answer needs a swap of its own.

        Args:
            outgoing: the frames to send, by peer.
            expected: the peers to receive from.
            purpose: for errors, such as "for its packet of round 7". Outside of `step()` it begins with the call, such
                as "total_traffic() after round 7", so that a rank elsewhere can be told where the others are.
            landing: gets chunks of long frames before these are complete. A transport may leave it alone.

        Raises:
            PeerLostError: naming the rank that is missing.
            WireError: for a malformed header.
        """
        ...

    def receive(
        self, senders: Sequence[int], awaited: Sequence[int], purpose: str, landing: Landing | None = None
    ) -> tuple[int, Encoded]:
        """Return the rank and frame of whichever of `senders` sends earliest. No other rank may send meanwhile.

        Args:
            senders: ranks that may send.
            awaited: ranks to name in the error if no frame arrives.
            purpose: as for `swap`.
            landing: as for `swap`.

        Raises:
            PeerLostError: naming the rank that is missing.
            WireError: for a malformed header.
        """
        ...

    def all_reduce(self, vector: Tensor, purpose: str, write: Callable[[int, int], object] | None = None) -> None:
        """Add up `vector` (d,) over all ranks, in place.

        Args:
            vector: the values to add, (d,).
            purpose: as for `swap`.
            write: `write(start, stop)` is called for each part before it is sent, and may still change it.

        Raises:
            PeerLostError: if a rank is lost.
        """
        ...

    def gather(self, value: Any, purpose: str, schema: Schema, max_bytes: int) -> list[Any]:  # noqa: ANN401 - JSON
        """Return the `value` of all ranks, by rank.

        Args:
            value: anything that JSON can hold.
            purpose: as for `swap`.
            schema: what every rank's value must fit.
            max_bytes: upper bound on the JSON of each.

        Raises:
            PeerLostError: if a rank is lost.
            WireError: naming the rank whose value is too long, no JSON, or does not fit.
        """
        ...

    def broadcast(self, vector: Tensor) -> None:
        """Overwrite `vector` (any shape, contiguous) on every rank by rank 0's. Raises PeerLostError."""
        ...

    def give_up(self, error: BaseException, purpose: str) -> None:
        """Tell the others that this rank ends a round with an error, and let none of them wait for it."""
        ...

    def close(self) -> None:
        """Release the connections. Not collective."""
        ...


T = TypeVar("T")


def carry_out(requests: Requests[T], transport: Transport) -> T:
    """Carry out a rank's requests, one after the other, and return what the generator returns.

    Raises:
        PeerLostError: if a rank is lost.
        WireError: for a frame that is malformed.
        ContractError: for a frame that is not the expected one.
    """
    answer = None
    purpose = ""  # of the last request: once there is one, other ranks may wait for this one
    try:
        while True:
            try:
                request = requests.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            purpose = request.purpose
            if type(request) is Sum:
                transport.all_reduce(request.vector, purpose, request.write)
                if request.is_control:
                    transport.control_bytes += 2 * request.vector.numel() * request.vector.element_size()
            elif type(request) is Receive:
                more = () if request.landing is None else (request.landing,)
                request.take(*transport.receive(request.senders, request.awaited, purpose, *more))
            else:
                more = () if request.landing is None else (request.landing,)
                for peer, data in transport.swap(request.outgoing, request.expected, purpose, *more):
                    request.take(peer, data)
            answer = transport.link_bytes_per_s
    except BaseException as error:
        if purpose:
            transport.give_up(error, purpose)
        raise
