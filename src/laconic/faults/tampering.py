"""Tampering with a packet on its link: its dense form is multiplied by one number."""

from dataclasses import replace

import torch
from torch import Tensor

from laconic.kernels.api import pack_codes, shortened, unpack_codes
from laconic.wire import (
    Dense,
    FractionalValues,
    Levels,
    Packet,
    Positions,
    QuantizedValues,
    ScaledSigns,
    SelectedValues,
    ShortFloats,
    Signs,
    Sparse,
    VoteChange,
    pack_levels,
)


def multiplied(packet: Packet, factor: float) -> Packet:
    """Return the packet whose dense form is `factor` times as large, rounded; overflow gives the largest finite value.

    Signs have no magnitude, so they are only inverted. Votes and positions have no sign either, and do not change.

    Raises:
        ValueError: for an unknown kind of packet.
    """
    turned, size = factor < 0, abs(factor)
    match packet:
        case Positions() | VoteChange():
            return packet
        case Signs():
            return packet.negated() if turned else packet
        case ScaledSigns():
            return replace(packet.negated() if turned else packet, scales=_times(packet.scales, size))
        case FractionalValues():
            packed = _turned_over(packet.packed, packet.count, packet.bits, 1 << (packet.bits - 1), turned)
            return replace(packet, packed=packed, means=_times(packet.means, size))
        case Levels():
            packed = pack_levels(-packet.levels, packet.steps) if turned else packet.packed
            return replace(packet, packed=packed, scales=_times(packet.scales, size))
        case QuantizedValues():
            lows, highs = _times(packet.lows, factor), _times(packet.highs, factor)
            packed = _turned_over(packet.packed, packet.count, packet.bits, (1 << packet.bits) - 1, turned)
            return replace(packet, packed=packed, lows=highs if turned else lows, highs=lows if turned else highs)
        case ShortFloats():
            values = shortened(_times(packet.values, factor), packet.mantissa_bits)
            return ShortFloats.of(values, packet.mantissa_bits, packet.offset)
        case Dense() | SelectedValues():
            return replace(packet, values=_times(packet.values, factor))
        case Sparse():
            return replace(packet, values=multiplied(packet.values, factor))
    raise ValueError(
        f"faults: packets of kind {packet.name!r} cannot be tampered with; remove rescale and inverted_links"
    )


def _turned_over(packed: Tensor, count: int, bits: int, which: int, turned: bool) -> Tensor:
    """Return packed codes in which the bits of `which` are inverted in each code if `turned`."""
    return pack_codes(unpack_codes(packed, count, bits) ^ which, bits) if turned else packed


def _times(values: Tensor, factor: float) -> Tensor:
    largest = torch.finfo(values.dtype).max
    return (values.double() * factor).clamp_(-largest, largest).to(values.dtype)  # a float32 factor might be inf
