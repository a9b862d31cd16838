"""Packets and their bytes. The format is in FORMAT.md."""

from laconic.errors import WireError
from laconic.wire.codec import (
    LEAD_BYTES,
    LONG_BYTES,
    BorrowedFrame,
    Encoded,
    Frame,
    LandedFrame,
    SplitFrame,
    decode,
    encode,
    encode_in_place,
    encode_split,
    max_encoded_bytes,
)
from laconic.wire.coding.positions import (
    POSITION_CODES,
    decode_positions,
    encode_positions,
    entropy_bound_bits,
    paper_position_bits,
)
from laconic.wire.control import Control
from laconic.wire.head import (
    CHECKSUM_AT,
    CHECKSUM_BYTES,
    FORMAT_VERSION,
    HEADER_BYTES,
    VALUE_BITS,
    Header,
    PayloadInfo,
    promised_bytes,
    read_payload_info,
)
from laconic.wire.in_chunks import (
    CHUNK_BYTES,
    PREFIX_BYTES,
    ChunkReader,
    OutgoingChunks,
    chunk_starts,
    goes_in_chunks,
    start_of,
)
from laconic.wire.measured import Measured
from laconic.wire.packets.blocks import blocks_between
from laconic.wire.packets.coming_codes import ComingCodes, ready_until
from laconic.wire.packets.dense import Dense
from laconic.wire.packets.fractional import FractionalValues
from laconic.wire.packets.late_codes import LateCodes
from laconic.wire.packets.levels import Levels, pack_levels
from laconic.wire.packets.packet import Ends, Packet, Size, Sizes, put_across
from laconic.wire.packets.positions import Positions
from laconic.wire.packets.quantized import QuantizedValues
from laconic.wire.packets.scaled_signs import ScaledSigns
from laconic.wire.packets.selected_signs import SelectedSigns
from laconic.wire.packets.selected_values import SelectedValues
from laconic.wire.packets.short_floats import ShortFloats, short_bits
from laconic.wire.packets.signs import Signs
from laconic.wire.packets.sparse import Sparse
from laconic.wire.packets.vote_change import VoteChange

__all__ = [
    "CHECKSUM_AT",
    "CHECKSUM_BYTES",
    "CHUNK_BYTES",
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "LEAD_BYTES",
    "LONG_BYTES",
    "POSITION_CODES",
    "PREFIX_BYTES",
    "VALUE_BITS",
    "BorrowedFrame",
    "ChunkReader",
    "ComingCodes",
    "Control",
    "Dense",
    "Encoded",
    "Ends",
    "FractionalValues",
    "Frame",
    "Header",
    "LandedFrame",
    "LateCodes",
    "Levels",
    "Measured",
    "OutgoingChunks",
    "Packet",
    "PayloadInfo",
    "Positions",
    "QuantizedValues",
    "ScaledSigns",
    "SelectedSigns",
    "SelectedValues",
    "ShortFloats",
    "Signs",
    "Size",
    "Sizes",
    "Sparse",
    "SplitFrame",
    "VoteChange",
    "WireError",
    "blocks_between",
    "chunk_starts",
    "decode",
    "decode_positions",
    "encode",
    "encode_in_place",
    "encode_positions",
    "encode_split",
    "entropy_bound_bits",
    "goes_in_chunks",
    "max_encoded_bytes",
    "pack_levels",
    "paper_position_bits",
    "promised_bytes",
    "put_across",
    "read_payload_info",
    "ready_until",
    "short_bits",
    "start_of",
]
