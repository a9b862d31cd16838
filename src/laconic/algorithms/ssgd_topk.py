"""SSGD-top-K: local steps, the largest entries of each worker's change, and the union of them back.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, section 2 and the baseline of Table 1.
Paper -> here: theta_{t,H} - theta_t -> me.change, e -> me.memory["debt"], phi -> density, K -> entries,
Q -> bits (fractional quantizer, 4.3.2), H -> local_steps of the driver.
Differs: the residual of round t enters round t+1, quantization error included (the print mixes indices). The mean
over workers, where Algorithm 1, line 26 prints a sum. The paper charges the way down for a union without overlap;
measured is the union that there was. Dense rounds (5 epochs in the paper) come first where asked for: plain averaging,
one local step, no debt.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic.compressors import dense, fractional, vector_entries
from laconic.contract import Algorithm, Inbox, Server, Step, Worker, algorithm
from laconic.errors import ContractError
from laconic.hyperparameters import knob
from laconic.kernels.api import add_at, clear_at, take_at, tally, top_k
from laconic.wire import POSITION_CODES, Dense, Fractional, Packet, Sparse, paper_position_bits


@algorithm("ssgd-topk")
@dataclass(frozen=True, kw_only=True)
class SSGDTopK(Algorithm):
    """The largest entries of each worker's change, quantized or not, and their union back."""

    source: ClassVar[str] = "Ozfatura, Ozfatura & Gunduz, Distributed Sparse SGD with Majority Voting, Table 1"
    consumes: ClassVar[Literal["gradient", "change"]] = "change"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "change"
    adaptive: ClassVar[bool] = True
    tolerates_absence: ClassVar[bool] = True
    toy: ClassVar[dict[str, float]] = {"density": 0.25}

    density: float = knob(0.01, "phi, share of the coordinates that is sent", within="(0, 1]")
    k: int | None = knob(None, "how many coordinates are sent, in place of density", within="[1, inf)", unit="entries")
    bits: int = knob(32, "q, bits of a value on the way up: 1 .. 16, or 32 for as it is", within="[1, 32]", unit="bits")
    code: str = knob("block", "how positions are coded", choices=POSITION_CODES)
    dense_rounds: int = knob(0, "first rounds without sparsifying and quantizing", within="[0, inf)", unit="rounds")

    def __post_init__(self) -> None:
        super().__post_init__()
        if 16 < self.bits < 32:
            raise ValueError(f"{self.name}: bits={self.bits} must be in 1 .. 16, or 32 to send values as they are")

    def check_size(self, d: int, layers: tuple[int, ...], n_workers: int) -> None:
        self.entries(d)

    def entries(self, d: int) -> int:
        """K of d. Raises ValueError for none, or more than there are."""
        return vector_entries(d, density=self.density, k=self.k)

    def dense_in(self, round_: int) -> bool:
        return round_ < self.dense_rounds

    def quantized(self, values: Tensor) -> Dense | Fractional:
        """Values (K,) for the way up."""
        return dense(values) if self.bits == 32 else fractional(values, bits=self.bits)

    def unsent(self, wish: Tensor, positions: Tensor, sent: Packet) -> Tensor:
        """`wish` (d,) less what was sent of it at the positions (K,); overwrites `wish`."""
        if self.bits == 32:
            clear_at(wish, positions)
        else:
            add_at(wish, positions, sent.dense().neg_())
        return wish

    def work(self, me: Worker) -> Step:
        if self.dense_in(me.round):
            return (yield dense(me.change)).dense()
        wish = me.change_plus(me.memory["debt"])
        positions = top_k(wish, self.entries(me.count))
        values = self.quantized(take_at(wish, positions))
        reply = yield Sparse(indices=positions, values=values, count=me.count, code=self.code)
        me.memory["debt"] = self.unsent(wish, positions, values) if reply.heard else wish
        return sparse(reply.packet)

    def serve(self, hub: Server, inbox: Inbox) -> Packet:
        if self.dense_in(hub.round):
            return dense(inbox.sum() / inbox.n_workers)
        packets = [sparse(packet) for packet in inbox.values()]
        union, _ = tally([packet.indices for packet in packets])
        total = torch.zeros(union.numel(), dtype=hub.memory.dtype)
        for packet in packets:
            total.index_add_(0, torch.searchsorted(union, packet.indices), packet.values.dense().to(total))
        mean = total.div_(inbox.n_workers)  # whoever was not heard owes its share
        left = mean != 0
        return Sparse(indices=union[left], values=dense(mean[left]), count=hub.count, code=self.code)

    def charge(self, way: Literal["up", "down"], packet: Packet) -> float:
        if not isinstance(packet, Sparse):
            return packet.paper_bits
        return packet.paper_bits + paper_position_bits(packet.count, packet.indices.numel())

    def paper_bits(self, d: int, layers: tuple[int, ...] = (), n_workers: int = 10) -> tuple[float, float]:
        entries = self.entries(d)
        union = min(d, n_workers * entries)
        up = self.bits * entries + paper_position_bits(d, entries)
        return up, 32 * union + paper_position_bits(d, union)


def sparse(packet: Packet) -> Sparse:
    """The packet as the sparse one that it is. Raises ContractError for another."""
    if not isinstance(packet, Sparse):
        raise ContractError(f"a packet of {packet.name} came where a sparse one was due; do all ranks do the same?")
    return packet
