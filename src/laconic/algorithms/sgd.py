"""Mini-batch SGD: the replicas average gradients.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, section 2.1.2, gradient
aggregation.
Paper -> here: g^(n) -> me.gradient, N -> inbox.n_workers, gamma -> the inner optimizer's learning rate.
Equations:
  worker: sends g
  step: x <- x - gamma mean of g
Differs: the mean of the gradients, where the section prints their sum; the two differ by a factor of the learning rate.
"""

from dataclasses import dataclass
from typing import ClassVar

from laconic.compressors import dense
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Server, Slices, Step, Worker, algorithm
from laconic.wire import Dense


@algorithm("sgd")
@dataclass(frozen=True, kw_only=True)
class SGD(Algorithm):
    """Every worker sends its gradient, and all apply the mean."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 2.1.2"
    unbiased: ClassVar[bool] = True

    @property
    def separable(self) -> bool:
        return True

    @property
    def over_slices(self) -> Slices:
        return "exact"

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (Exchange(count=spec.d, offset=spec.offset, adds=True, as_given=True),)

    def work(self, me: Worker) -> Step:
        reply = yield dense(me.gradient, offset=me.offset)
        return reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        return dense(inbox.mean(), offset=server.offset)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * spec.d, 32.0 * spec.d
