"""Mini-batch SGD: the replicas average models.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, section 2.1.2, model aggregation.
Paper -> here: x^(n)_{1/2} -> me.parameters + me.change.
Equations:
  worker: sends y = x - gamma g
  step: x <- mean of y
Differs: nothing. With plain SGD as inner optimizer, the trajectory is that of gradient aggregation.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from laconic.compressors import dense
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Server, Slices, Step, Worker, algorithm
from laconic.wire import Dense


@algorithm("sgd-model")
@dataclass(frozen=True, kw_only=True)
class ModelAveraging(Algorithm):
    """Every worker makes a local step; all take the mean of the models."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 2.1.2"
    consumes: ClassVar[Literal["gradient", "change"]] = "change"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "parameters"

    @property
    def separable(self) -> bool:
        return True

    @property
    def over_slices(self) -> Slices:
        return "exact"

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (Exchange(count=spec.d, offset=spec.offset, adds=True, as_given=True),)

    def work(self, me: Worker) -> Step:
        reply = yield dense(me.updated, offset=me.offset)
        return reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        return dense(inbox.mean(), offset=server.offset)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * spec.d, 32.0 * spec.d
