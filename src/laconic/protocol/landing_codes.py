"""Quantized packets that are added up or written while their codes come: `landing.py` has the same for dense ones."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from laconic.kernels.api import ranges
from laconic.protocol.job import PlannedExchange
from laconic.protocol.worker import WorkerSession
from laconic.wire import LONG_BYTES, ComingCodes, Ends, Packet, QuantizedValues, ready_until


@final
class MeanOfCodes:
    """The mean of a server's inbox. It counts only where all frames turn out to be what it has added."""

    def __init__(
        self, own: Mapping[int, QuantizedValues], senders: Mapping[int, int], out: Tensor, max_count: int,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        """Begin a mean.

        Args:
            own: by worker, the packets that are here already.
            senders: by node, the workers whose frames come.
            out: where to write the mean, (d,).
            max_count: number of coordinates up to the last one of the full vector.
            meanwhile: is called once when a chunk has landed, while others are under way.
        """
        self._coming = {rank: ComingCodes(own.get(rank)) for rank in sorted((*own, *senders.values()))}
        self._senders, self._out, self._max_count, self._meanwhile = senders, out, max_count, meanwhile
        self._n_added = 0
        self._ends: list[Ends] = []  # of the parts that are added
        self.began = False
        """Whether a chunk has landed."""

    def chunk(self, node: int, values: Tensor, start: int) -> None:
        """See `Landing`."""
        if not self.began:
            self.began = True
            if self._meanwhile is not None:
                self._meanwhile()
        if values.dtype is not torch.uint8:
            return  # the frame will be refused
        self._coming[self._senders[node]].look(values, start, self._out, self._max_count)
        start, stop = self._n_added, ready_until(min(each.n_ready for each in self._coming.values()), self._out.numel())
        if stop > start:
            parts = [each.between(start, stop) for each in self._coming.values()]
            ends = QuantizedValues.sum_into(parts, self._out[start:stop], len(parts))
            if isinstance(ends, tuple):
                self._n_added = stop
                self._ends.append(ends)

    def mean_of(self, packets: Mapping[int, Packet]) -> tuple[Tensor, None, Ends] | None:
        """Return the mean of these packets, (d,), and its ends; None where that is not what was made."""
        if self._n_added != self._out.numel() or packets.keys() != self._coming.keys():
            return None
        if not all(self._coming[rank].is_start_of(packet) for rank, packet in packets.items()):
            return None
        lows, highs = (torch.cat(ends) for ends in zip(*self._ends, strict=True))
        return self._out, None, (ranges(lows, [lows.numel()])[0], ranges(highs, [highs.numel()])[1])


@final
class AnswerOfCodes:
    """The dense form of a server's answer. It counts only where the frame turns out to be what it has written."""

    def __init__(self, new_vector: Callable[[], Tensor], max_count: int) -> None:
        """Begin an answer.

        Args:
            new_vector: makes a vector (d,) with arbitrary content, which is valid in this round.
            max_count: number of coordinates up to the last one.
        """
        self._new_vector, self._max_count = new_vector, max_count
        self._coming = ComingCodes()
        self._out: Tensor | None = None
        self._n_written = 0

    def chunk(self, node: int, values: Tensor, start: int) -> None:
        """See `Landing`."""
        if values.dtype is not torch.uint8:
            return  # values that need not be unpacked
        out = self._out = self._new_vector() if self._out is None else self._out
        self._coming.look(values, start, out, self._max_count)
        start, stop = self._n_written, ready_until(self._coming.n_ready, out.numel())
        if stop > start:
            self._coming.between(start, stop).put_into(out[start:stop])
            self._n_written = stop

    def take(self, packet: Packet) -> Tensor | None:
        """Return the dense form (d,) of a packet, once: the vector is the caller's. None where it was not written."""
        out, self._out = self._out, None
        return out if out is not None and self._n_written == packet.count and self._coming.is_start_of(packet) else None


def answer_of_codes(worker: WorkerSession, planned: PlannedExchange) -> AnswerOfCodes | None:
    """Return what writes the next answer that a worker gets while it comes, if one long frame brings all of it.

    Args:
        worker: a worker on whose rank nothing serves; its next reply takes what was made.
        planned: the exchange.
    """
    job, worker.take_made = worker.job, None
    is_long = job.d * job.dtype.itemsize >= LONG_BYTES
    if planned.is_split or not (is_long and planned.is_full) or job.device.type != "cpu":
        return None
    answer = AnswerOfCodes(worker.scratch, job.spec.stop)
    worker.take_made = answer.take
    return answer
