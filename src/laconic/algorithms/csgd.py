"""CSGD: compress upload and download with an unbiased compressor, without error feedback.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, section 3.1.2, (3.2), with a
parameter server.
Paper -> here: Q -> compressor / server_compressor, g^(n) -> me.gradient, N -> inbox.n_workers, gamma -> the inner
optimizer's learning rate.
Equations:
  worker: sends Q(g)
  server: answers Q(mean of Q(g))
  step: x <- x - gamma Q(mean of Q(g))
With `partitions` each of N partitions of the vector is compressed by itself, at a worker and at the server of that
partition: the section's compressed multi-server, as layout `sharded` carries it out.
Differs: the mean of (3.2), where (3.3) and the section's prose have a sum; it is over the workers whose packets
arrived, since there is no residual.
The variance of the direction is at most sigma^2 / N + (1 + 1/N) sigma'^2, where the second term is Q's. A biased Q
leaves an error that does not vanish; use EC-SGD for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from laconic.compressors import COMPRESSORS, BlockCompressor, Compressor, Quantized, common_bounds
from laconic.contract import (
    Algorithm,
    Exchange,
    Inbox,
    ModelSpec,
    Server,
    Slices,
    Step,
    Worker,
    algorithm,
)
from laconic.hyperparameters import hyperparameter
from laconic.wire import Levels, Packet, QuantizedValues, ScaledSigns


@algorithm("csgd")
@dataclass(frozen=True, kw_only=True)
class CSGD(Algorithm):
    """Compressed upload and download without error feedback."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 3.1.2"
    takes_gradient_tensors: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True
    """With unbiased compressors, as the defaults are."""

    compressor: Compressor = hyperparameter(Quantized(), "Q, compressor of the upload", kinds=COMPRESSORS)
    server_compressor: Compressor = hyperparameter(Quantized(), "Q, compressor of the download", kinds=COMPRESSORS)

    partitions: bool = hyperparameter(
        False, "compress each of the N partitions of the vector by itself, as N servers do; for compressors of blocks"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in ("compressor", "server_compressor") if self.partitions else ():
            compressor = getattr(self, side)
            if not isinstance(compressor, BlockCompressor) or compressor.blocks != "vector":
                raise ValueError(
                    f"csgd: partitions=True needs {side} with one block for a partition, as quantized, qsgd, ternary "
                    f"and scaled-sign with blocks=vector are, not {compressor}; leave partitions out for others"
                )

    @property
    def serves_mean(self) -> bool:
        return True

    @property
    def separable(self) -> bool:
        return self.partitions or (self.compressor.separable and self.server_compressor.separable)

    @property
    def over_slices(self) -> Slices:
        by_layer = self.compressor.separable_by_layer and self.server_compressor.separable_by_layer
        return "blocks" if self.partitions else "exact" if self.separable else "layers" if by_layer else "blocks"

    def server_bounds(self, spec: ModelSpec) -> Sequence[int]:
        if self.partitions:
            return super().server_bounds(spec)
        return common_bounds(self.compressor.server_bounds(spec), self.server_compressor.server_bounds(spec))

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        up, down = (
            one.accept(spec).with_any("lengths") if self.partitions else one.accept(spec)  # others for each server
            for one in (self.compressor, self.server_compressor)
        )
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        lengths = partition_lengths(me.count, me.n_workers) if self.partitions else None
        compressor, spec = _by_partition(self.compressor, me.spec, lengths)
        reply = yield compressor.of_gradient(me, spec=spec, key=me.key("compress"), offset=me.offset)
        return reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        lengths = _lengths_of(inbox, server.count) if self.partitions else None
        compressor, spec = _by_partition(self.server_compressor, server.spec, lengths)
        return compressor.of_mean(inbox, spec=spec, key=server.key("compress"), offset=server.offset)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return self.compressor.paper_bits(spec), self.server_compressor.paper_bits(spec)


def partition_lengths(d: int, n: int) -> tuple[int, ...]:
    """Return the lengths of the partitions of d elements that n servers have, without empty ones.

    If n does not divide d, those in front are longer by one.
    """
    short, longer = divmod(d, n)
    return tuple(length for node in range(n) if (length := short + (node < longer)))


def _by_partition(
    compressor: Compressor, spec: ModelSpec, lengths: tuple[int, ...] | None
) -> tuple[Compressor, ModelSpec]:
    """Return a compressor and the layers of its vector: if lengths are given, these are partitions in their place."""
    if lengths is None:
        return compressor, spec
    assert isinstance(compressor, BlockCompressor)
    return replace(compressor, blocks="layer"), ModelSpec.of_sizes(*lengths)


def _lengths_of(inbox: Inbox, count: int) -> tuple[int, ...]:
    """Return the partitions of what a server serves, as the packets that reached it have them: one, or all."""
    for packet in inbox.values():
        assert isinstance(packet, (Levels, QuantizedValues, ScaledSigns)), "which the protocol has checked"
        return tuple(packet.lengths)
    return (count,)
