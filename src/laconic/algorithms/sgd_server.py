"""Mini-batch SGD: the server holds the only model.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, arXiv 2104.05245, section 2.1.2, global replica.
Paper -> here: the server's x -> the model that server.descend steps, g^(n) -> me.gradient.
Equations:
  worker: sends g
  server: x <- x - gamma mean of g; answers x
Differs: the server steps with a copy of the user's own optimizer, whichever it is; the section has plain SGD.
The model stays on one server: splitting it is only right for optimizers that update each parameter on its own.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from laconic.contract import Algorithm, Inbox, ModelSpec, Server, Step, Worker, algorithm
from laconic.wire import Dense


@algorithm("sgd-server")
@dataclass(frozen=True, kw_only=True)
class GlobalReplica(Algorithm):
    """Workers push gradients and pull the model."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 2.1.2"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "parameters"
    server_steps: ClassVar[bool] = True
    takes_changes: ClassVar[bool] = False
    unbiased: ClassVar[bool] = True

    @property
    def serves_mean(self) -> bool:
        return True

    def work(self, me: Worker) -> Step:
        reply = yield me.dense_gradient()
        return reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        return server.descend_mean(inbox)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * spec.d, 32.0 * spec.d
