"""Vector -> Packet, without state between calls. One file a compressor, or a family of them."""

from laconic.compressors.blocks import block_lengths
from laconic.compressors.compressor import Compressor, warn_of_growing_debt
from laconic.compressors.dense import DenseValues, Identity, dense
from laconic.compressors.fractional import Fractional, fractional
from laconic.compressors.largest import block_entries, chosen, entries_of, vector_entries
from laconic.compressors.qsgd import QSGD
from laconic.compressors.quantized import Quantized
from laconic.compressors.scaled_sign import ScaledSign, scaled_signs
from laconic.compressors.selection import Selection
from laconic.compressors.short_floats import Clipped, Natural
from laconic.compressors.sign import Sign, majority, momentum_signs, owing_step, owing_total, signs, threshold_of
from laconic.compressors.sparsified import Sparsified
from laconic.compressors.ternary import Ternary
from laconic.compressors.top_k import TopK

COMPRESSORS: dict[str, type[Compressor]] = {
    "identity": Identity,
    "dense": DenseValues,
    "sign": Sign,
    "scaled-sign": ScaledSign,
    "fractional": Fractional,
    "top-k": TopK,
    "quantized": Quantized,
    "qsgd": QSGD,
    "ternary": Ternary,
    "natural": Natural,
    "clipped": Clipped,
    "sparsified": Sparsified,
}

__all__ = [
    "COMPRESSORS",
    "QSGD",
    "Clipped",
    "Compressor",
    "DenseValues",
    "Fractional",
    "Identity",
    "Natural",
    "Quantized",
    "ScaledSign",
    "Selection",
    "Sign",
    "Sparsified",
    "Ternary",
    "TopK",
    "block_entries",
    "block_lengths",
    "chosen",
    "dense",
    "entries_of",
    "fractional",
    "majority",
    "momentum_signs",
    "owing_step",
    "owing_total",
    "scaled_signs",
    "signs",
    "threshold_of",
    "vector_entries",
    "warn_of_growing_debt",
]
