"""CSGD on a ring: an all-reduce that compresses at every hop.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, section 3.1.2, (3.3), on the ring
of section 1.3.
Paper -> here: Q -> compressor, partition p -> the slice that worker p compresses first.
Equations:
  hop: slice p of worker n is Q(slice p of worker n-1 + its own), from worker p on around the ring
  step: x <- x - gamma (last value of each slice) / N
Differs: the paper prints a sum; here it is divided by N. Each slice is compressed N times: by its first worker, then
by each worker that adds its own. The last value travels on unchanged, so that all workers apply the same bits. With
partitioned=false there is one slice, the full vector, and one worker sends at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic.compressors import COMPRESSORS, Compressor, Identity
from laconic.contract import Accept, Algorithm, Arriving, Exchange, ModelSpec, Slices, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import Landed, add_up, sum_landed
from laconic.wire import Dense, Measured, Packet


@algorithm("csgd-ring")
@dataclass(frozen=True, kw_only=True)
class CSGDRing(Algorithm):
    """A ring all-reduce of gradients that compresses at every hop."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, (3.3)"
    mode: ClassVar[Literal["rounds", "decentralized"]] = "decentralized"

    compressor: Compressor = hyperparameter(Identity(), "Q, compressor that is applied at every hop", kinds=COMPRESSORS)
    partitioned: bool = hyperparameter(
        True, "whether N slices travel at once (true), or the full vector from worker to worker (false)"
    )

    @property
    def over_slices(self) -> Slices:
        return "blocks"

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        hops = n_workers - 1
        compressed = [self._accept(spec, *bounds) for bounds in self._slices(spec.d, n_workers)]
        forwarded = [accept and accept.forwarded((number - 1) % n_workers) for number, accept in enumerate(compressed)]
        return tuple(
            Exchange(
                count=spec.d, offset=spec.offset, name="reduce" if slot < hops else "allgather",
                up=partial(_of_sender, compressed if slot <= hops else forwarded, slot),
            )
            for slot in range(2 * hops)
        )  # fmt: skip

    def _slices(self, d: int, n: int) -> list[tuple[int, int]]:
        """Return n slices (start, stop) of d coordinates: one is all of them unless the vector is partitioned."""
        return _equal_slices(d, n) if self.partitioned else [(0, d)] + [(0, 0)] * (n - 1)

    def _accept(self, spec: ModelSpec, start: int, stop: int) -> Accept | None:
        """Return what a peer accepts of a slice: nothing if it is empty."""
        if start == stop:
            return None
        return self.compressor.accept(ModelSpec.of_sizes(stop - start)).about(spec.offset + start, stop - start)

    def peers(self, rank: int, n_workers: int, round_: int, exchange: int, key: int) -> tuple[int, ...]:
        sends = self.partitioned or rank == exchange % n_workers
        return ((rank + 1) % n_workers,) if sends else ()

    def work(self, me: Worker) -> Step:
        """Slice k leaves worker k+s in exchange s; from exchange N-1 on it is complete."""
        n = me.n_workers
        slices = self._slices(me.count, n)
        mean = me.scratch() if n > 1 else me.gradient
        before = (me.rank - 1) % n
        came: Packet | None = None  # in the last exchange
        made: Measured | None = None  # of it while it came, where that was seen
        for slot in range(2 * n - 2):
            start, stop = slices[(me.rank - slot) % n]
            sent = None
            if stop > start:
                sent = came if slot >= n else self._compressed(me, start, stop, came, made)
            is_divided = made is not None
            arriving = self._see(me, slot, slices[(before - slot) % n], mean)
            reply = yield sent
            came = reply.packets.get(before)
            made = arriving.made if arriving is not None and arriving.saw(before, came) else None
            if slot == n - 1 and not is_divided:
                _put_mean(sent, me, mean)
            if slot >= n - 1 and made is None:
                _put_mean(came, me, mean)
        return mean

    def _see(self, me: Worker, slot: int, bounds: tuple[int, int], mean: Tensor) -> Arriving | None:
        """Add the slice that comes in this exchange to the own one while it comes, or divide it if it is complete.

        What is added last makes it complete: then it is divided, too, while it is in the caches.
        """
        start, stop = bounds
        if type(self.compressor) is not Identity or start == stop:
            return None
        n, own, out = me.n_workers, me.gradient[start:stop], mean[start:stop]

        def add(_: int, values: Tensor, at: int) -> Landed:
            part = own[at : at + values.numel()]
            landed = sum_landed([part, values], 1, part, sends_on=True)
            if slot == n - 2:
                torch.div(part, n, out=out[at : at + values.numel()])
            return landed

        def divide(_: int, values: Tensor, at: int) -> Landed:
            return sum_landed([values], 0, out[at : at + values.numel()], divisor=n)

        return me.see_arriving(add if slot < n - 1 else divide, stop - start)

    def _compressed(self, me: Worker, start: int, stop: int, came: Packet | None, made: Measured | None) -> Packet:
        """Return the received slice plus this worker's own slice of the gradient, compressed."""
        own = me.gradient[start:stop]
        is_here = came is None or (type(came) is Dense and came.values.device == own.device)
        if type(self.compressor) is Identity and is_here:
            sent = Dense(values=own, offset=me.offset + start)
            if came is None:  # as it was read; the largest magnitude of more than the slice bounds it, too
                largest, checksum = me.gradient_parts.get((start, stop), (me.largest_gradient, None))
                return sent if largest is None else sent.measured(largest, checksum)
            if made is not None:
                return sent.measured(made.largest, made.checksum)
            return sent.measured(add_up([own, came.dense()], own, from_zero=False))
        if came is not None:
            came.add_to(own)  # in place of the gradient, each slice of which is sent once
        return self.compressor(own, key=me.key("compress"), offset=me.offset + start)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        bits = 2 * (n_workers - 1) / n_workers * self.compressor.paper_bits(ModelSpec.of_sizes(spec.d))
        return bits, bits  # unpartitioned: as a mean over workers


def _put_mean(total: Packet | None, me: Worker, mean: Tensor) -> None:
    """Write a slice of the sum, divided by the number of workers, to its place in `mean` (d,)."""
    if total is not None:
        start = total.offset - me.offset
        torch.div(total.dense(), me.n_workers, out=mean[start : start + total.count])


def _of_sender(accepted: Sequence[Accept | None], slot: int, rank: int) -> Accept | None:
    return accepted[(rank - slot) % len(accepted)]


def _equal_slices(d: int, n: int) -> list[tuple[int, int]]:
    """Return n slices (start, stop) of d coordinates; the first ones are longer by one where n does not divide d."""
    short, longer = divmod(d, n)
    bounds = [k * short + min(k, longer) for k in range(n + 1)]
    return [(bounds[k], bounds[k + 1]) for k in range(n)]
