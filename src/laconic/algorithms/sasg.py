"""SASG: sparse uploads with error feedback, sent only when the gradient has changed.

Deng, Li, Sun, Lu: Communication-Efficient Distributed Learning via Sparse and Adaptive Stochastic Gradient (SASG),
arXiv 2112.04088, Algorithm 1.
Paper -> here: e_m -> me.memory["residual"], gamma -> me.lr, T_k -> take, omega^{t-tau} ->
me.memory["uploaded_parameters"], alpha_d -> alpha, D -> window and max_delay, M^t -> inbox, M_c^t -> inbox.skipped,
stored T_k(g) -> server.memory["positions.<rank>"] and server.memory["values.<rank>"].
Equations:
  worker: if it has changed as in LASG (WK2): p = gamma g + e_m; sends T_k(p); e_m <- p - T_k(p)
  server: answers the mean over all workers of their last uploads, stored sparse
  step: x <- x - mean
Differs: uploads are stored sparse, multiplied by the learning rate of their round. Equation (16) is false as printed
when k < d and a worker skips: what holds is nu' = nu - (1/M)(sum over uploaders of gamma g + sum over skippers of what
is stored). With skip_error="corrected", skippers add the difference, me.memory["unsent"], to their residual, which
makes (16) true. An upload that is lost becomes residual, and in that round the worker's stored upload is not used
either. The paper has the mean over workers, its code the sum: lr_convention. Bits as for `sparse`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch

from laconic.algorithms.sparse import Parts, SparseUploads
from laconic.contract import Exchange, Inbox, ModelSpec, Rule, Server, Slot, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import clear_at
from laconic.policies.lazy_aggregation import Lazy, has_stayed
from laconic.wire import Packet, Sparse


@algorithm("sasg")
@dataclass(frozen=True, kw_only=True)
class SASG(SparseUploads, Lazy):
    """The largest elements of each step, where the gradient has changed."""

    source: ClassVar[str] = "Deng, Li, Sun & Lu, SASG, Algorithm 1"
    tolerates_absence: ClassVar[bool] = True
    takes_gradient_tensors: ClassVar[bool] = True
    test_settings: ClassVar[dict[str, float]] = {"density": 0.25, "alpha": 0.05}

    skip_error: str = hyperparameter(
        "paper", "whether a skipping worker leaves its residual as it is (paper), or adds what the stored upload "
        "leaves out (corrected)",
        choices=("paper", "corrected"),
    )  # fmt: skip

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        unsent = {"unsent": Slot(rule=Rule.PER_WORKER)} if self.skip_error == "corrected" else {}
        return {**super().worker_slots, "residual": Slot(rule=Rule.SUM), **unsent}

    @property
    def server_slots(self) -> Mapping[str, Slot]:
        # Of a slice, shorter: what of a worker's upload is in it.
        length, per_worker = self.n_selected, Rule.PER_WORKER
        return {
            "positions.<rank>": Slot(
                rule=per_worker, dtype=torch.int32, length=length, may_be_shorter=True, values="indices"
            ),
            "values.<rank>": Slot(rule=per_worker, length=length, may_be_shorter=True, at="positions.<rank>"),
        }

    @property
    def second_gradient(self) -> bool:
        return True

    def check_size(self, spec: ModelSpec, n_workers: int) -> None:
        self.n_selected(spec)

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        up, down = (self.accept_selection(spec), None), self.accept_answer(spec, n_workers)
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        threshold = self.watch(me)
        skip = False
        if threshold > 0 and not self.must_send(me):
            other = me.gradient_tensors_at(me.memory["uploaded_parameters"])
            skip = has_stayed(me.gradient_tensors, other, threshold)  # (6)
        if skip:
            stays = me.memory["residual"]
            if self.skip_error == "corrected":  # before it is sent, so that an overflow aborts the round
                me.memory["residual"] = torch.add(stays, me.memory["unsent"], out=me.scratch())
            reply = yield None
            self.note(me, uploaded=False)
            if self.skip_error == "corrected" and not reply.delivered:  # the stored upload was not used
                me.memory["residual"] = stays
            return self.direction(me, reply)
        corrected = me.scratch()
        residual = me.memory["residual"] if me.lr else None  # at the learning rate 0 it waits
        sent = self.gather_and_take(me, me.lr or 1.0, corrected, residual)
        reply = yield sent
        if reply.delivered:
            clear_at(corrected, sent.indices)
            if self.skip_error == "corrected":
                me.memory["unsent"] = torch.sub(corrected, me.memory["residual"], out=me.scratch())
        me.memory["residual"] = corrected
        self.note(me, uploaded=reply.delivered)
        return self.direction(me, reply)

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        uploads = []
        for rank in range(inbox.n_workers):
            if rank in inbox:
                positions, values = _parts_of(cast("Sparse", inbox[rank]))
                server.memory[f"positions.{rank}"], server.memory[f"values.{rank}"] = positions, values
            elif rank in inbox.skipped and f"positions.{rank}" in server.memory:
                positions, values = server.memory[f"positions.{rank}"], server.memory[f"values.{rank}"]
            else:
                continue  # not delivered: the worker keeps what it sent as residual
            uploads.append((positions.long(), values))
        return self.answered(server, uploads, self.divisor(inbox.n_workers))  # (8)

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        return packet.paper_bits if direction == "up" else 0.0

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        return 32.0 * self.n_selected(spec), 0.0


def _parts_of(packet: Sparse) -> Parts:
    """Return what is stored of an upload: positions (k,) int32 and values (k,)."""
    return packet.indices.int(), packet.values.dense().clone()  # a view would keep the full frame in memory
