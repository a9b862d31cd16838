"""SASG: sparse uploads with error feedback, sent only when the gradient has changed.

Deng, Guo, Wang, Wang, Sun: Communication-Efficient Distributed Learning with Sparsification and Adaptive Aggregation
(SASG), Algorithm 1.
Paper -> here: e_m -> me.memory["debt"], gamma -> me.lr, T_k -> take, omega^{t-tau} -> me.memory["there"],
alpha_d -> alpha, D -> window and max_delay, M^t -> inbox, M_c^t -> inbox.skipped, the stored T_k(g) ->
hub.memory["positions.n"] and ["values.n"].
Differs: uploads are stored sparse, with the rate of their round inside. Equation (16) is false as printed when k < d
and somebody skips: what holds is nu' = nu - (1/M)(sum over uploaders of gamma g + sum over skippers of what is
stored); skip_error="corrected" lets skippers owe the difference, which makes (16) true. An upload that gets lost on
the way counts as owed, and in that round that worker's stored one is not used either. The paper has the mean over
workers, its code the sum: lr_convention. Bits as for `sparse`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic.compressors import Selection, dense
from laconic.contract import Inbox, Server, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import add_at, clear_at
from laconic.policies.lazy_aggregation import Lazy, gap_to_second, small_against
from laconic.wire import Dense, Packet, Sparse


@algorithm("sasg")
@dataclass(frozen=True, kw_only=True)
class SASG(Selection, Lazy):
    """The largest entries of each worker's step, uploaded only when its gradient changed."""

    source: ClassVar[str] = "Deng, Guo, Wang, Wang & Sun, SASG, Algorithm 1"
    tolerates_absence: ClassVar[bool] = True
    test_settings: ClassVar[dict[str, float]] = {"density": 0.25, "alpha": 0.05}

    skip_error: str = hyperparameter(
        "paper", "a skipping worker's debt stays as it is, or takes up what the stored upload leaves out",
        choices=("paper", "corrected"),
    )  # fmt: skip

    @property
    def second_gradient(self) -> bool:
        return True

    def check_size(self, d: int, layers: tuple[int, ...], n_workers: int) -> None:
        self.n_selected(d, layers)

    def work(self, me: Worker) -> Step:
        threshold = self.watch(me)
        skip = False
        if threshold > 0 and not self.must_send(me):
            skip = small_against(gap_to_second(me, me.memory["uploaded_parameters"]), threshold)  # (5)
        if skip:
            reply = yield None
            self.note(me, uploaded=False)
            if self.skip_error == "corrected" and reply.delivered:  # else nothing was used
                me.memory["residual"] = torch.add(me.memory["residual"], me.memory["unsent"], out=me.memory.scratch())
            return torch.div(reply.dense(), me.lr, out=me.memory.scratch())
        corrected = me.gradient.mul_(me.lr).add_(me.memory["residual"])  # in the gradient's place
        sent = self.take(corrected, me.layers)
        reply = yield sent
        if reply.delivered:
            clear_at(corrected, sent.indices)
            if self.skip_error == "corrected":
                me.memory["unsent"] = torch.sub(corrected, me.memory["residual"], out=me.memory.scratch())
        me.memory["residual"] = corrected
        self.note(me, uploaded=reply.delivered)
        return torch.div(reply.dense(), me.lr, out=me.memory.scratch())

    def serve(self, server: Server, inbox: Inbox) -> Dense:
        total = server.memory.scratch().zero_()
        for rank in range(inbox.n_workers):
            if rank in inbox:
                positions, values = _parts_of(inbox[rank])
                server.memory[f"positions.{rank}"], server.memory[f"values.{rank}"] = positions, values
            elif rank in inbox.skipped and f"positions.{rank}" in server.memory:
                positions, values = server.memory[f"positions.{rank}"], server.memory[f"values.{rank}"]
            else:
                continue  # not heard at all: it owes what it sent
            add_at(total, positions.long(), values)
        return dense(self.combined(total, inbox.n_workers), offset=server.offset)  # (8)

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        return packet.paper_bits if direction == "up" else 0.0

    def paper_bits(self, d: int, layers: tuple[int, ...] = (), n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * self.n_selected(d, layers), 0.0


def _parts_of(packet: Packet) -> tuple[Tensor, Tensor]:
    """What is stored of an upload: positions (k,) int32, values (k,)."""
    assert isinstance(packet, Sparse), packet.name
    return packet.indices.int(), packet.values.dense().clone()  # a view would keep the whole frame
