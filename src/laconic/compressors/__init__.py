"""Compressors: a vector in, a packet out, without state between calls. One file for each compressor or family.

Importing this package imports every file in it, so a new file enters its compressors.
"""

import pkgutil
from importlib import import_module

from laconic.compressors.compressor import (
    BlockCompressor,
    Compressor,
    block_lengths,
    common_bounds,
    warn_of_growing_residual,
)
from laconic.compressors.dense import DenseValues, Identity, dense
from laconic.compressors.fractional import Fractional, fractional
from laconic.compressors.largest import chosen, n_selected_by_block, n_selected_for, n_selected_in
from laconic.compressors.qsgd import QSGD
from laconic.compressors.quantized import Quantized
from laconic.compressors.scaled_sign import ScaledSign, scaled_signs
from laconic.compressors.selected_sign import SelectedSign
from laconic.compressors.selection import Selection
from laconic.compressors.short_floats import Clipped, Natural
from laconic.compressors.sign import (
    Sign,
    error_feedback_signs,
    majority,
    momentum_signs,
    server_error_feedback_signs,
    signs,
    threshold_of,
    zeros_at_random,
)
from laconic.compressors.sparsified import Sparsified
from laconic.compressors.ternary import Ternary
from laconic.compressors.top_k import TopK

_FILES = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
COMPRESSORS: dict[str, type[Compressor]] = {
    found.name: found
    for file in _FILES
    for found in vars(file).values()
    if isinstance(found, type) and issubclass(found, Compressor) and "name" in vars(found)
}
"""Every compressor by its name, in the order of the files."""

__all__ = [
    "COMPRESSORS",
    "QSGD",
    "BlockCompressor",
    "Clipped",
    "Compressor",
    "DenseValues",
    "Fractional",
    "Identity",
    "Natural",
    "Quantized",
    "ScaledSign",
    "SelectedSign",
    "Selection",
    "Sign",
    "Sparsified",
    "Ternary",
    "TopK",
    "block_lengths",
    "chosen",
    "common_bounds",
    "dense",
    "error_feedback_signs",
    "fractional",
    "majority",
    "momentum_signs",
    "n_selected_by_block",
    "n_selected_for",
    "n_selected_in",
    "scaled_signs",
    "server_error_feedback_signs",
    "signs",
    "threshold_of",
    "warn_of_growing_residual",
    "zeros_at_random",
]
