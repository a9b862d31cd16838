"""Mini-batch SGD, replicas average models.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, section 2.1.2, model aggregation.
Paper -> here: x^(n)_{1/2} -> me.parameters + me.change, H local steps -> local_steps.
Differs: nothing; with plain SGD inside it gives the trajectory of gradient aggregation.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from laconic.compressors import dense
from laconic.contract import Algorithm, Inbox, Server, Step, Worker, algorithm
from laconic.knobs import knob
from laconic.wire import Dense


@algorithm("sgd-model")
@dataclass(frozen=True, kw_only=True)
class ModelAveraging(Algorithm):
    """Every worker steps on its own, then everybody takes the mean of the models."""

    source: ClassVar[str] = "Liu & Zhang, Distributed Learning Systems with First-Order Methods, 2.1.2"
    consumes: ClassVar[Literal["gradient", "change"]] = "change"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "parameters"
    adds: ClassVar[bool] = True

    steps: int = knob(1, "inner-optimizer steps between two averages", within="[1, inf)", unit="steps")

    @property
    def separable(self) -> bool:
        return True

    @property
    def local_steps(self) -> int:
        return self.steps

    def work(self, me: Worker) -> Step:
        reply = yield dense(me.parameters + me.change)
        return reply.dense()

    def serve(self, hub: Server, inbox: Inbox) -> Dense:
        return dense(inbox.mean(), first=hub.first)

    def paper_bits(self, d: int, layers: tuple[int, ...] = ()) -> tuple[float, float]:
        return 32.0 * d, 32.0 * d
