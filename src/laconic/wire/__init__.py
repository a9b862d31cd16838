"""Packets and their bytes. The format is in FORMAT.md; bytes are counted here and nowhere else."""

from laconic.wire.codec import Frame, decode, encode
from laconic.wire.dense import Dense
from laconic.wire.head import HEAD_BYTES, Head, WireError
from laconic.wire.meter import Count, Meter
from laconic.wire.packet import Packet
from laconic.wire.scaled_signs import ScaledSigns
from laconic.wire.signs import Signs

__all__ = [
    "HEAD_BYTES",
    "Count",
    "Dense",
    "Frame",
    "Head",
    "Meter",
    "Packet",
    "ScaledSigns",
    "Signs",
    "WireError",
    "decode",
    "encode",
]
