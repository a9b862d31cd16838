"""A quantized packet whose codes come, of which those that are here can be used."""

from dataclasses import replace
from typing import final

from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import BlockLengths
from laconic.wire.packets.packet import Packet
from laconic.wire.packets.quantized import QuantizedValues

_UNIT = 1 << 10  # elements whose codes fill bytes, whatever their bits; no fewer are treated at a time


@final
class ComingCodes:
    """A packet whose codes come. It has one block, and its codes fill bytes: others are read when they are complete."""

    def __init__(self, packet: QuantizedValues | None = None) -> None:
        """`packet`: one that is here already."""
        self.packet = packet
        self.n_ready = 0 if packet is None else packet.count
        """Number of the elements, from the first one on, whose codes have come."""
        self._place = (0, 0)  # address and length of the payload that the packet is of

    def look(self, payload: Tensor, n_landed: int, out: Tensor, max_count: int) -> None:
        """Note that the first bytes of a payload (n,) uint8 have come, of a packet about as many elements as `out`."""
        place = payload.data_ptr(), payload.numel()
        if self.packet is not None and self._place == place:
            n_missing = payload.numel() - n_landed
            self.n_ready = min(self.packet.count, 8 * (self.packet.packed.numel() - n_missing) // self.packet.bits)
            return
        try:
            found = QuantizedValues.read_ahead(payload, out.dtype, max_count, n_landed)
        except WireError:
            return  # the frame will be refused
        if found is not None and found[0].count == out.numel() and len(found[0].lengths) == 1:
            (self.packet, self.n_ready), self._place = found, place

    def between(self, start: int, stop: int) -> QuantizedValues:
        """Return these elements, the first one a multiple of _UNIT, as a packet that shares the codes."""
        packet = self.packet
        assert packet is not None, "some of it has come"
        place = slice(start * packet.bits // 8, (stop * packet.bits + 7) // 8)
        length = stop - start
        return replace(
            packet, packed=packet.packed[place], count=length, lengths=BlockLengths.uniform(length, length),
            offset=packet.offset + start,
        )  # fmt: skip

    def is_start_of(self, packet: Packet) -> bool:
        """Return whether this is what came of a packet, complete and checked by now."""
        mine = self.packet
        return (
            mine is not None
            and type(packet) is QuantizedValues
            and packet.packed.data_ptr() == mine.packed.data_ptr()
            and (packet.count, packet.bits, packet.lengths) == (mine.count, mine.bits, mine.lengths)
            and packet.dtype is mine.dtype
            and bool(packet.lows == mine.lows)
            and bool(packet.highs == mine.highs)
        )


def ready_until(n_ready: int, count: int) -> int:
    """Return up to which element to treat what is ready."""
    return count if n_ready >= count else n_ready - n_ready % _UNIT
