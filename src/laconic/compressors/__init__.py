"""Vector -> Packet, without state between calls. One file a compressor."""

from laconic.compressors.compressor import Compressor
from laconic.compressors.dense import DenseValues, Identity, dense
from laconic.compressors.fractional import Fractional, fractional
from laconic.compressors.largest import block_entries, chosen, entries_of, vector_entries
from laconic.compressors.scaled_sign import ScaledSign, block_lengths, scaled_signs
from laconic.compressors.selection import Selection
from laconic.compressors.sign import Sign, signs, threshold_of
from laconic.compressors.top_k import TopK

COMPRESSORS: dict[str, type[Compressor]] = {
    "identity": Identity,
    "dense": DenseValues,
    "sign": Sign,
    "scaled-sign": ScaledSign,
    "fractional": Fractional,
    "top-k": TopK,
}

__all__ = [
    "COMPRESSORS",
    "Compressor",
    "DenseValues",
    "Fractional",
    "Identity",
    "ScaledSign",
    "Selection",
    "Sign",
    "TopK",
    "block_entries",
    "block_lengths",
    "chosen",
    "dense",
    "entries_of",
    "fractional",
    "scaled_signs",
    "signs",
    "threshold_of",
    "vector_entries",
]
