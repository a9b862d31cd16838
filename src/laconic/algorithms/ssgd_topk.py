"""SSGD-top-K: each worker sends the largest elements of its change after local steps and gets back their union.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, arXiv 2011.06495, section 2 and the
baseline of Table 1.
Paper -> here: theta_{t,H} - theta_t -> me.change, e -> me.memory["residual"], phi -> density,
K -> n_selected, Q -> bits (fractional quantizer, 4.3.2), H -> local_steps of the driver.
Equations:
  worker: p = theta_{t,H} - theta_t + e; sends Q(top-K(p)); e <- p - Q(top-K(p))
  server: answers the mean of Q(top-K(p)), on the union of their coordinates
  step: theta <- theta + mean
Differs: the residual of round t enters round t+1, quantization error included (the print mixes indices). The mean over
workers, where Algorithm 1, line 26 prints a sum. The paper's formula counts the download as a union without overlap;
the meter counts the actual union. With dense_rounds above 0 (5 epochs in the paper), training starts with rounds of
model averaging after one local step, without residual. With warm_up_density these rounds are sparse instead, and the
density falls exponentially to its own, as in Lin et al.: Deep Gradient Compression, 2018. K is rounded down; the first
author's code rounds it up (rounding="ceil"), and multiplies the residual by 0.1 where the learning rate falls
(residual_at_decay=0.1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from laconic.compressors import dense, fractional, n_selected_in
from laconic.contract import (
    DENSE,
    Accept,
    Algorithm,
    Exchange,
    Inbox,
    ModelSpec,
    Rule,
    Server,
    Slices,
    Slot,
    Step,
    Worker,
    algorithm,
)
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import add_at, clear_at, take_at, union_sum
from laconic.wire import POSITION_CODES, Dense, FractionalValues, Packet, Sparse, paper_position_bits

_FACTOR = 4  # by which the density falls from stage to stage of a warm-up, or by less


@algorithm("ssgd-topk")
@dataclass(frozen=True, kw_only=True)
class SSGDTopK(Algorithm):
    """The largest elements of each worker's change; down comes their union."""

    source: ClassVar[str] = "Ozfatura, Ozfatura & Gunduz, Distributed Sparse SGD with Majority Voting, Table 1"
    consumes: ClassVar[Literal["gradient", "change"]] = "change"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "change"
    adaptive: ClassVar[bool] = True
    tolerates_absence: ClassVar[bool] = True
    test_settings: ClassVar[dict[str, float]] = {"density": 0.25}

    density: float = hyperparameter(0.01, "phi, share of the coordinates that a worker sends", within="(0, 1]")
    k: int | None = hyperparameter(
        None, "K, number of coordinates that a worker sends; it replaces density", within="[1, inf)", unit="coordinates"
    )
    bits: int = hyperparameter(
        32,
        "q, bits of a value in the upload: 1 to 16, or 32 for values that are not quantized",
        within="[1, 32]",
        unit="bits",
    )
    code: str = hyperparameter("block", "code of the positions", choices=POSITION_CODES)
    dense_rounds: int = hyperparameter(
        0, "number of initial rounds that are dense and not quantized", within="[0, inf)", unit="rounds"
    )
    warm_up_density: float | None = hyperparameter(
        None, "density of the first of dense_rounds, which are then not dense: it falls to density, by a factor of at "
        "most 4 a stage", within="(0, 1]",
    )  # fmt: skip
    rounding: str = hyperparameter(
        "floor", "how density times the number of coordinates is rounded", choices=("floor", "ceil")
    )
    residual_at_decay: float = hyperparameter(
        1.0, "factor of the residual in a round whose learning rate is at most half of the round's before",
        within="[0, 1]",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if 16 < self.bits < 32:
            raise ValueError(f"{self.name}: bits={self.bits} must be in 1 .. 16, or 32 to send values as they are")
        self._check_warm_up()

    def _check_warm_up(self) -> None:
        if self.warm_up_density is None:
            return
        asked = f"{self.name}: warm_up_density={self.warm_up_density:g}"
        if self.k is not None:
            raise ValueError(f"{asked} falls to a density, and k={self.k} is a number; give density in place of k")
        if self.warm_up_density <= self.density:
            raise ValueError(f"{asked} must be above density={self.density:g}, to which it falls")
        if not self.dense_rounds:
            raise ValueError(f"{asked} needs dense_rounds, the number of rounds in which it falls")

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        lr = {} if self.residual_at_decay == 1 else {"lr": Slot.number(Rule.SAME, lowest=0)}
        return {"residual": Slot(rule=Rule.SUM), **lr}

    @property
    def over_slices(self) -> Slices:
        return "blocks"

    def check_size(self, spec: ModelSpec, n_workers: int) -> None:
        self.n_selected(spec.d)

    def n_selected(self, d: int) -> int:
        """Return K for d coordinates. Raises ValueError if K is 0 or above d."""
        return n_selected_in(d, density=self.density, k=self.k, rounding=self.rounding)

    def dense_in(self, round_: int) -> bool:
        return self.warm_up_density is None and round_ < self.dense_rounds

    def in_round(self, round_: int) -> "SSGDTopK":
        if self.warm_up_density is None or round_ >= self.dense_rounds:
            return self
        return self._stages[len(self._stages) * round_ // self.dense_rounds]

    @cached_property
    def _stages(self) -> tuple["SSGDTopK", ...]:
        """The method in each stage of the warm-up; all take equally many rounds."""
        assert self.warm_up_density is not None
        fall = self.density / self.warm_up_density
        n = max(1, math.ceil(-math.log(fall, _FACTOR) - 1e-9))
        return tuple(self.with_density(self.warm_up_density * fall ** (stage / n)) for stage in range(n))

    def with_density(self, density: float) -> "SSGDTopK":
        """Return the method without a warm-up at this density, as it is in a stage of one."""
        return replace(self, density=density, dense_rounds=0, warm_up_density=None)

    def corrected_and_largest(self, me: Worker) -> tuple[Tensor, Tensor]:
        """Return the change plus the residual, (d,), and where its K largest are, (K,) int64. Call it once a round."""
        residual = me.memory["residual"]
        if self.residual_at_decay < 1 and me.lr > 0:
            if 2 * me.lr <= me.memory.number("lr", 0):
                residual = torch.mul(residual, self.residual_at_decay, out=me.scratch())
            me.memory.set_number("lr", me.lr)
        return me.change_plus_and_largest(residual, self.n_selected(me.count))

    def quantized(self, values: Tensor) -> Dense | FractionalValues:
        """Return the values (K,) as a packet for the upload."""
        return dense(values) if self.bits == 32 else fractional(values, bits=self.bits)

    def accept_quantized(self) -> Accept:
        """Return what a peer accepts as what `quantized` returns."""
        return DENSE if self.bits == 32 else Accept(FractionalValues, bits=self.bits)

    def unsent(self, corrected: Tensor, positions: Tensor, sent: Packet) -> Tensor:
        """Return `corrected` (d,) less what was sent of it at the positions (K,). Overwrites `corrected`."""
        if self.bits == 32:
            clear_at(corrected, positions)
        else:
            add_at(corrected, positions, sent.dense().neg_())
        return corrected

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        n_selected = self.n_selected(spec.d)
        union = range(min(spec.d, n_workers * n_selected) + 1)
        up = Accept(Sparse, n_selected=n_selected, values=self.accept_quantized(), code=self.code)
        down = Accept(Sparse, n_selected=union, values=DENSE, code=self.code)
        return (Exchange(count=spec.d, offset=spec.offset, up=up, down=down),)

    def work(self, me: Worker) -> Step:
        if self.dense_in(me.round):
            return (yield dense(me.change, offset=me.offset)).dense()
        corrected, positions = self.corrected_and_largest(me)
        values = self.quantized(take_at(corrected, positions))
        reply = yield Sparse(indices=positions, values=values, count=me.count, offset=me.offset, code=self.code)
        me.memory["residual"] = self.unsent(corrected, positions, values) if reply.delivered else corrected
        return cast("Sparse", reply.packet)

    def serve(self, server: Server, inbox: Inbox) -> Packet:
        if self.dense_in(server.round):
            return dense(inbox.sum() / inbox.n_workers, offset=server.offset)
        packets = [cast("Sparse", packet) for packet in inbox.values()]
        dtype = server.memory.dtype
        values = [packet.values.dense().to(dtype) for packet in packets]
        union, total = union_sum([packet.indices for packet in packets], values, dtype)
        mean = total.div_(inbox.n_workers)  # by all workers: what was not delivered stays residual
        return Sparse.of_sums(union, mean, server.count, server.offset, self.code)

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        if not isinstance(packet, Sparse):
            return packet.paper_bits
        return packet.paper_bits + paper_position_bits(packet.count, packet.indices.numel())

    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        n_selected = self.n_selected(spec.d)
        union = min(spec.d, n_workers * n_selected)
        up = self.bits * n_selected + paper_position_bits(spec.d, n_selected)
        return up, 32 * union + paper_position_bits(spec.d, union)
