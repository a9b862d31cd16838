"""A sum of dense packets that is made while they come: each chunk is added when it has landed of all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, final

from torch import Tensor

from laconic.kernels.api import add_up, add_up_with_checksum
from laconic.wire import Dense, Measured, Packet

Seen = tuple[float, int] | None
"""The largest magnitude of a chunk's values and the CRC-32 of its bytes, where they were looked at; else None."""
Write = Callable[[Sequence[Tensor], int, int], tuple[float, int | None]]


def adding_to(out: Tensor, divisor: int) -> Write:
    """Return what writes the sum of vectors, from the first one on, divided, to `out` (d,) for `SumWhileLanding`."""

    def write(parts: Sequence[Tensor], start: int, stop: int) -> tuple[float, int]:
        return add_up_with_checksum(parts, out[start:stop], divisor=divisor, from_zero=False)

    return write


class Landing(Protocol):
    """What is told of chunks of a long frame as they land."""

    def chunk(self, node: int, values: Tensor, start: int) -> Seen:
        """Take the values (n,) from `start` on of this node's frame. They are not checked yet: only scratch may change.

        They stay where they are until the round ends. Of a frame that is not dense they are all bytes of its payload,
        uint8, of which `start` have come.

        Returns:
            What it has seen of a dense frame's values in its own pass over them; None for who else must look at them.
        """


@final
class EachWhileLanding:
    """The sums of frames that are served one by one: each of its own alone, from 0."""

    def __init__(
        self, rank_of: Mapping[int, int], begin: Callable[[Mapping[int, int]], "SumWhileLanding | None"]
    ) -> None:
        """Make sums of frames from now on.

        Args:
            rank_of: by node, its worker.
            begin: begins the sum of one frame, or a step along it, of which there is one at a time; by the sender's
                node, its worker. It returns None where nothing is to be made.
        """
        self._rank_of, self._begin = rank_of, begin
        self.sums: dict[int, SumWhileLanding] = {}
        """By worker, of its last frame that came in chunks."""

    def chunk(self, node: int, values: Tensor, start: int) -> None:
        """See `Landing`."""
        rank = self._rank_of[node]
        if not start:
            self.sums.pop(rank, None)
            begun = self._begin({node: rank})
            if begun is not None and not begun.makes_mean:
                self.sums.clear()
            if begun is not None:
                self.sums[rank] = begun
        if rank in self.sums:
            self.sums[rank].chunk(node, values, start)


@final
class SumWhileLanding:
    """The sum of a server's inbox. It counts only where all frames turn out to be what it has added."""

    def __init__(
        self,
        own: Mapping[int, Tensor],
        senders: Mapping[int, int],
        out: Tensor,
        meanwhile: Callable[[], object] | None = None,
        write: Write | None = None,
    ) -> None:
        """Begin a sum.

        Args:
            own: by worker, the values (d,) that are here already.
            senders: by node, the workers whose frames come.
            out: where to write the mean of all, (d,).
            meanwhile: is called once when a chunk has landed, while others are under way.
            write: `write(parts, start, stop)` writes what is made of all parts to `out` in place of their mean, and
                returns its largest magnitude and its CRC-32.
        """
        self._at = {rank: values.data_ptr() for rank, values in own.items()}
        self._own, self._senders, self._out = own, senders, out
        self._meanwhile, self._write = meanwhile, self._write_mean if write is None else write
        self.makes_mean = write is None
        """Whether `out` gets the mean, and nothing else."""
        self._landed: dict[int, dict[int, Tensor]] = {}  # by start and worker: chunks that the others lack
        self._n_added = 0
        self._written = Measured()  # the chunks come in order
        self.began = False
        """Whether a chunk has landed."""

    def chunk(self, node: int, values: Tensor, start: int) -> None:
        """See `Landing`."""
        if not self.began:
            self.began = True
            if self._meanwhile is not None:
                self._meanwhile()
        rank, stop = self._senders[node], start + values.numel()
        if values.dtype is not self._out.dtype or stop > self._out.numel():
            return  # the frame will be refused
        if not start:
            self._at[rank] = values.data_ptr()
        landed = self._landed.setdefault(start, {})
        landed[rank] = values
        if len(landed) < len(self._senders) or len({len(each) for each in landed.values()}) > 1:
            return
        parts = {**{rank: values[start:stop] for rank, values in self._own.items()}, **self._landed.pop(start)}
        largest, checksum = self._write([part for _, part in sorted(parts.items())], start, stop)
        self._written.add(largest, checksum, (stop - start) * self._out.itemsize)
        self._n_added += stop - start

    @property
    def checksum(self) -> int | None:
        """The CRC-32 of the bytes that were written, if that is known."""
        return self._written.checksum

    def _write_mean(self, parts: Sequence[Tensor], start: int, stop: int) -> tuple[float, None]:
        return add_up(parts, self._out[start:stop], divisor=len(parts)), None

    def made_of(self, packets: Mapping[int, Packet]) -> tuple[Tensor, float, int | None] | None:
        """Return what `mean_of` does, and the CRC-32 of its bytes if it is known."""
        made = self.mean_of(packets)
        return None if made is None else (*made, self.checksum)

    def mean_of(self, packets: Mapping[int, Packet]) -> tuple[Tensor, float] | None:
        """Return what was made of these packets, (d,), and its largest magnitude; None where it is of others."""
        if self._n_added != self._out.numel() or packets.keys() != self._at.keys():
            return None
        for rank, packet in packets.items():
            if type(packet) is not Dense or packet.count != self._n_added or packet.values.data_ptr() != self._at[rank]:
                return None
        return self._out, self._written.largest
