"""Asynchronous SGD with bounded staleness: the server applies each worker's gradient as it comes.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020, sections 4.1 and 4.2:
x_{t+1} = x_t - gamma g(x_{D(t)}), where t - D(t) <= tau.
Paper -> here: x -> the model that server.descend steps, t -> the number of updates, D(t) -> the update at which the
worker took the model, t - D(t) -> hub.staleness, tau -> max_staleness.
rate="inverse": Zhang, Gupta, Lian, Liu: Staleness-Aware Async-SGD for Distributed Deep Learning, 2016; the rate there
is divided by the staleness, here by 1 + staleness, so that a fresh gradient counts in full.
Differs: the server's step is the inner optimizer's, whichever it is; gradients may be compressed, the model comes back
as it is. The paper's rate (4.10), 1/(L (tau + 1) + ...), does not satisfy its own condition (4.8), eta L tau <= 1/2,
from tau = 2 on; 1/(2 L (tau + 1) + ...) does. The method's own rate here is plain SGD's / (2 (tau + 1)), where tau > 0.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from laconic.compressors import COMPRESSORS, Compressor, Identity, dense
from laconic.contract import Algorithm, Inbox, Late, Server, StalenessBound, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.wire import Dense


@algorithm("asgd")
@dataclass(frozen=True, kw_only=True)
class ASGD(Algorithm):
    """Nobody waits for the slowest; what is too old waits, or is dropped."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 4.1"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "parameters"
    mode: ClassVar[Literal["rounds", "decentralized", "arrivals"]] = "arrivals"
    replicas_equal: ClassVar[bool] = False
    server_steps: ClassVar[bool] = True
    takes_changes: ClassVar[bool] = False
    test_lr: ClassVar[float] = 0.05

    max_staleness: int | None = hyperparameter(
        None, "tau; none for no bound, 0 for one worker at a time", within="[0, inf)"
    )
    staleness: str = hyperparameter(
        "hold", "what is too old waits for the older, or is dropped", choices=("hold", "drop")
    )
    lr_scaling: str = hyperparameter(
        "constant", "of a stale gradient: the same, or divided by 1 + staleness", choices=("constant", "inverse")
    )
    compressor: Compressor = hyperparameter(Identity(), "Q of the gradient", kinds=COMPRESSORS)

    @property
    def lr_factor(self) -> float:
        return 1.0 if not self.max_staleness else 1 / (2 * (self.max_staleness + 1))

    def staleness_bound(self) -> StalenessBound:
        return StalenessBound(self.max_staleness, cast("Late", self.staleness))

    def work(self, me: Worker) -> Step:
        reply = yield self.compressor(me.gradient, layers=me.layers, key=me.key("compress"))
        return reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        direction = inbox.sum()
        if self.lr_scaling == "inverse":
            direction /= 1 + server.staleness
        return dense(server.descend(direction))

    def paper_bits(self, d: int, layers: tuple[int, ...] = (), n_workers: int = 10) -> tuple[float, float]:
        return self.compressor.paper_bits(d, layers), 32.0 * d
