"""SparseLoCo: DiLoCo whose workers send the largest elements of each chunk in two bits, with a decaying residual.

Sarfi, Therien, Lidin, Belilovsky: Communication Efficient LLM Pre-training with SparseLoCo, 2025, arXiv 2508.15706.
Paper -> here: Delta_r -> -me.change, e_r -> me.memory["residual"], beta -> decay, Top-k -> take, Q -> bits,
alpha -> outer_lr, R -> inbox.n_workers, H -> local_steps of the driver.
Equations:
  worker: H local steps from x to x_r; p = x_r - x + beta e; sends Q(Top-k(p)) by chunk; e <- p - Q(Top-k(p))
  server: answers alpha mean of Q(Top-k(p))
  step: x <- x + alpha mean of Q(Top-k(p))
Differs: chunks are runs of 4096 parameters; the authors' code cuts matrices into squares of 64 x 64. The 2 bits are a
sign and one of two levels of magnitude, with their means; the code has four parts of the range. The paper gathers the
workers' packets; here the answer is their mean. Positions are coded and counted in blocks, as `ssgd-topk` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

from laconic.compressors import Selection, fractional
from laconic.contract import Algorithm, Exchange, Inbox, ModelSpec, Rule, Server, Slices, Slot, Step, Worker, algorithm
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import union_sum
from laconic.wire import Packet, Sparse, paper_position_bits


@algorithm("sparseloco")
@dataclass(frozen=True, kw_only=True)
class SparseLoCo(Selection, Algorithm):
    """Local steps, then the largest elements of each chunk, in two bits."""

    source: ClassVar[str] = "Sarfi et al., SparseLoCo, 2025, arXiv 2508.15706"
    consumes: ClassVar[Literal["gradient", "change"]] = "change"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "change"
    adaptive: ClassVar[bool] = True
    tolerates_absence: ClassVar[bool] = True
    over_slices: ClassVar[Slices] = "blocks"
    worker_slots: ClassVar[Mapping[str, Slot]] = {"residual": Slot(rule=Rule.SUM)}
    test_settings: ClassVar[dict[str, float]] = {"density": 0.25}

    density: float = hyperparameter(1 / 64, "share of each chunk that a worker sends", within="(0, 1]")
    blocks: str = hyperparameter("4096", 'chunks: the "vector", each "layer", or runs of this many parameters')
    bits: int = hyperparameter(2, "bits of a sent value: 1 to 16, or 32 for float32", within="[1, 32]", unit="bits")
    decay: float = hyperparameter(0.95, "beta, share of the residual that stays from round to round", within="[0, 1]")
    outer_lr: float = hyperparameter(1.0, "alpha, learning rate of the outer step", within="(0, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if 16 < self.bits < 32:
            raise ValueError(f"{self.name}: bits={self.bits} must be in 1 .. 16, or 32 to send values as they are")

    @property
    def separable(self) -> bool:
        return self.bits == 32

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        up, down = self.accept_selection(spec, self.bits), self.accept_union(spec, n_workers)
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        corrected, sent = self.take_of_change(me, me.memory["residual"], decay=self.decay)
        if self.bits < 32:
            sent = replace(sent, values=fractional(sent.values.dense(), bits=self.bits))
        reply = yield sent
        me.memory["residual"] = sent.unsent_of(corrected) if reply.delivered else corrected
        is_one = len(reply.parts) == 1 and reply.packet.count == me.count  # not one of several slices
        return cast("Sparse", reply.packet) if is_one else reply.dense()

    def serve(self, server: Server, inbox: Inbox) -> Sparse:
        packets, dtype = [cast("Sparse", packet) for packet in inbox.values()], server.memory.dtype
        values = [packet.values.dense().to(dtype) for packet in packets]
        union, total = union_sum([packet.indices for packet in packets], values, dtype)
        # By all workers: what was not delivered stays in its worker's residual.
        step = total.div_(inbox.n_workers / self.outer_lr)
        return Sparse.of_sums(union, step, server.count, server.offset, self.code)

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        k = packet.indices.numel() if isinstance(packet, Sparse) else 0
        return packet.paper_bits + paper_position_bits(packet.count, k)

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        d, up = spec.d, self.n_selected(spec)
        down = min(d, n_workers * up)
        return self.bits * up + paper_position_bits(d, up), 32 * down + paper_position_bits(d, down)
