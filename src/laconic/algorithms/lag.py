"""LAG-WK: a worker whose gradient has hardly changed skips, and the server uses its last upload again.

Chen, Giannakis, Sun, Yin: LAG: Lazily Aggregated Gradient for Communication-Efficient Distributed Learning,
NeurIPS 2018, arXiv 1805.09965; rule (5) of Deng, Li, Sun, Lu (SASG), arXiv 2112.04088, which compares gradients of two
different samples.
Paper -> here: grad_n(x^{t-tau}) -> me.memory["uploaded"], stored gradient h_n -> server.memory["stored.<rank>"],
xi or alpha_j -> alpha, D -> window and max_delay (two things that the papers give one letter).
Equations:
  worker: sends g if ||g - g at the last upload||^2 > (alpha/gamma) (sum of the last D ||x_t - x_{t-1}||^2) / N^2
  server: answers the mean over all workers of h_n, where h_n is the last upload of worker n
  step: x <- x - gamma mean of h_n
Differs: skips only where the threshold is above 0. The rule compares with the gradient that was uploaded, so it is
meant for full local gradients. With mini-batches, noise makes all workers send in every round; use LASG for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from laconic.contract import DENSE, Exchange, Inbox, ModelSpec, Rule, Server, Slot, Step, Worker, algorithm
from laconic.kernels.api import add_up
from laconic.policies.lazy_aggregation import Lazy, has_stayed
from laconic.wire import Dense

STORED: Mapping[str, Slot] = {"stored.<rank>": Slot(rule=Rule.PER_WORKER, stays=True)}  # what `stored_sum` writes


@algorithm("lag")
@dataclass(frozen=True, kw_only=True)
class LAG(Lazy):
    """Full local gradients, uploaded only where they have changed."""

    source: ClassVar[str] = "Chen, Giannakis, Sun & Yin, NeurIPS 2018, LAG-WK"

    server_slots: ClassVar[Mapping[str, Slot]] = STORED

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        return {**super().worker_slots, "uploaded": Slot(rule=Rule.PER_WORKER)}

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        return (Exchange(count=spec.d, offset=spec.offset, up=(DENSE, None)),)

    def work(self, me: Worker) -> Step:
        threshold = self.watch(me)
        skip = not self.must_send(me) and has_stayed([me.gradient], [me.memory["uploaded"]], threshold)
        sent = None if skip else me.dense_gradient()
        reply = yield sent
        uploaded = sent is not None and reply.delivered
        self.note(me, uploaded=uploaded)
        if uploaded:
            me.memory["uploaded"] = me.gradient
        return reply.result()

    def sum_divisor(self, n_workers: int) -> int:
        return self.divisor(n_workers)

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        return stored_sum(server, inbox, self.divisor(inbox.n_workers))

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * spec.d, 32.0 * spec.d


def stored_sum(server: Server, inbox: Inbox, divisor: int) -> Dense:
    """Store this round's uploads; return the sum of all workers' last ones, added in rank order and divided."""
    for rank, packet in inbox.items():
        server.memory[f"stored.{rank}"] = packet.dense()
    made = inbox.made_sum()
    if made is not None:
        return Dense(values=made[0], offset=server.offset).measured(*made[1:])
    total, stored = server.scratch(), [server.memory[f"stored.{rank}"] for rank in range(inbox.n_workers)]
    largest = add_up(stored, total, divisor=divisor, from_zero=False)
    return Dense(values=total, offset=server.offset).measured(largest)
