"""Vector -> Packet, without state between calls. One file a compressor."""

from laconic.compressors.compressor import Compressor
from laconic.compressors.dense import DenseValues, Identity, dense
from laconic.compressors.scaled_sign import ScaledSign, block_lengths, scaled_signs
from laconic.compressors.sign import Sign, signs, threshold_of

COMPRESSORS: dict[str, type[Compressor]] = {
    "identity": Identity,
    "dense": DenseValues,
    "sign": Sign,
    "scaled-sign": ScaledSign,
}

__all__ = [
    "COMPRESSORS",
    "Compressor",
    "DenseValues",
    "Identity",
    "ScaledSign",
    "Sign",
    "block_lengths",
    "dense",
    "scaled_signs",
    "signs",
    "threshold_of",
]
