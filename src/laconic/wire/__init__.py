"""Packets and their bytes. The format is in FORMAT.md; bytes are counted here and nowhere else."""

from laconic.wire.codec import Encoded, Frame, SplitFrame, decode, encode, encode_split
from laconic.wire.dense import Dense
from laconic.wire.fractional import Fractional
from laconic.wire.head import HEAD_BYTES, Head, WireError
from laconic.wire.kept_values import KeptValues
from laconic.wire.levels import Levels
from laconic.wire.meter import Count, FrameSizes, Meter
from laconic.wire.packet import Packet, Size, Sizes
from laconic.wire.position_codes import POSITION_CODES, paper_position_bits
from laconic.wire.positions import Positions
from laconic.wire.quantized import Quantized
from laconic.wire.scaled_signs import ScaledSigns
from laconic.wire.short_floats import ShortFloats
from laconic.wire.signs import Signs
from laconic.wire.sparse import Sparse
from laconic.wire.vote_change import VoteChange

__all__ = [
    "HEAD_BYTES",
    "POSITION_CODES",
    "Count",
    "Dense",
    "Encoded",
    "Fractional",
    "Frame",
    "FrameSizes",
    "Head",
    "KeptValues",
    "Levels",
    "Meter",
    "Packet",
    "Positions",
    "Quantized",
    "ScaledSigns",
    "ShortFloats",
    "Signs",
    "Size",
    "Sizes",
    "Sparse",
    "SplitFrame",
    "VoteChange",
    "WireError",
    "decode",
    "encode",
    "encode_split",
    "paper_position_bits",
]
