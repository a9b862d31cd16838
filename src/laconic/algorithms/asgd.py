"""Asynchronous SGD with bounded staleness: the server applies each worker's gradient as it arrives.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020, arXiv 2104.05245, sections 4.1 and 4.2:
x_{t+1} = x_t - gamma g(x_{D(t)}), where t - D(t) <= tau.
Paper -> here: x -> the model that server.descend steps, gamma -> the inner optimizer's learning rate, t -> the number
of updates, D(t) -> the update at which the worker took the model, t - D(t) -> server.staleness, tau -> max_staleness.
lr_scaling="inverse": Zhang, Gupta, Lian, Liu: Staleness-Aware Async-SGD for Distributed Deep Learning, 2016, arXiv
1511.05950. The paper divides the learning rate by the staleness. Here it is divided by 1 + staleness: a fresh gradient
counts in full.
Equations:
  worker: sends Q(g) of the model that it has, which is t - D(t) updates old
  server: x <- x - gamma Q(g), as each arrives; with lr_scaling=inverse x <- x - gamma Q(g) / (1 + t - D(t))
Differs: the inner optimizer makes the server's step, whichever it is. Gradients may be compressed; the model is sent
uncompressed. The paper's learning rate (4.10), 1/(L (tau + 1) + ...), violates its own condition (4.8),
eta L tau <= 1/2, from tau = 2 on; 1/(2 L (tau + 1) + ...) satisfies it. So `lr_factor` is 1/(2 (tau + 1)) for tau > 0.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from laconic.compressors import COMPRESSORS, Compressor, Identity, dense
from laconic.contract import (
    Algorithm,
    Exchange,
    Inbox,
    Late,
    ModelSpec,
    Server,
    StalenessBound,
    Step,
    Worker,
    algorithm,
)
from laconic.hyperparameters import hyperparameter
from laconic.wire import Dense


@algorithm("asgd")
@dataclass(frozen=True, kw_only=True)
class ASGD(Algorithm):
    """Gradients are applied as they arrive; old ones wait or are dropped."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 4.1"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "parameters"
    mode: ClassVar[Literal["rounds", "decentralized", "arrivals"]] = "arrivals"
    replicas_equal: ClassVar[bool] = False
    server_steps: ClassVar[bool] = True
    takes_changes: ClassVar[bool] = False
    test_lr: ClassVar[float] = 0.05

    max_staleness: int | None = hyperparameter(
        None,
        "tau, the largest staleness that is applied: none for no bound, 0 for one worker at a time",
        within="[0, inf)",
    )
    staleness: str = hyperparameter(
        "hold",
        "whether workers and gradients wait to keep the bound (hold), or gradients that are too old are dropped (drop)",
        choices=("hold", "drop"),
    )
    lr_scaling: str = hyperparameter(
        "constant",
        "whether a stale gradient counts in full (constant), or is divided by 1 + staleness (inverse)",
        choices=("constant", "inverse"),
    )
    compressor: Compressor = hyperparameter(Identity(), "compressor of the gradient", kinds=COMPRESSORS)

    @property
    def lr_factor(self) -> float:
        return 1.0 if not self.max_staleness else 1 / (2 * (self.max_staleness + 1))

    def staleness_bound(self) -> StalenessBound:
        return StalenessBound(self.max_staleness, cast("Late", self.staleness))

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (Exchange(count=spec.d, offset=spec.offset, up=self.compressor.accept(spec)),)

    @property
    def serves_mean(self) -> bool:
        return type(self.compressor) is Identity

    def work(self, me: Worker) -> Step:
        if type(self.compressor) is Identity:
            reply = yield me.dense_gradient()
        else:
            reply = yield self.compressor(me.gradient, spec=me.spec, key=me.key("compress"), offset=me.offset)
        return reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        if self.lr_scaling == "constant" or not server.staleness:
            return server.descend_mean(inbox)  # of one gradient
        direction = inbox.sum()
        direction /= 1 + server.staleness
        return dense(server.descend(direction), offset=server.offset)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return self.compressor.paper_bits(spec), 32.0 * spec.d
