"""CSGD: compress upload and download with an unbiased compressor, without error feedback.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, section 3.1.2, (3.2), with a
parameter server.
Paper -> here: Q -> compressor / server_compressor, g^(n) -> me.gradient, N -> inbox.n_workers, gamma -> the inner
optimizer's learning rate.
Equations:
  worker: sends Q(g)
  server: answers Q(mean of Q(g))
  step: x <- x - gamma Q(mean of Q(g))
Differs: the mean of (3.2), where (3.3) and the section's prose have a sum; it is over the workers whose packets
arrived, since there is no residual.
The variance of the direction is at most sigma^2 / N + (1 + 1/N) sigma'^2, where the second term is Q's. A biased Q
leaves an error that does not vanish; use EC-SGD for it.
"""

from dataclasses import dataclass
from typing import ClassVar

from laconic.compressors import COMPRESSORS, Compressor, Quantized
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Server, Slices, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.wire import Packet


@algorithm("csgd")
@dataclass(frozen=True, kw_only=True)
class CSGD(Algorithm):
    """Compressed upload and download without error feedback."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 3.1.2"
    unbiased: ClassVar[bool] = True
    """With unbiased compressors, as the defaults are."""

    compressor: Compressor = hyperparameter(Quantized(), "Q, compressor of the upload", kinds=COMPRESSORS)
    server_compressor: Compressor = hyperparameter(Quantized(), "Q, compressor of the download", kinds=COMPRESSORS)

    @property
    def separable(self) -> bool:
        return self.compressor.separable and self.server_compressor.separable

    @property
    def over_slices(self) -> Slices:
        return "exact" if self.separable else "blocks"

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        up, down = self.compressor.accept(spec), self.server_compressor.accept(spec)
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        reply = yield self.compressor(me.gradient, spec=me.spec, key=me.key("compress"), offset=me.offset)
        return reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        return self.server_compressor(inbox.mean(), spec=server.spec, key=server.key("compress"), offset=server.offset)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return self.compressor.paper_bits(spec), self.server_compressor.paper_bits(spec)
