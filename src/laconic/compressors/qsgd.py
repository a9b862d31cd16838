"""Levels of a block's L2 norm, rounded at random so that the mean is the value.

Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding,
NeurIPS 2017, section 3.1. Paper -> here: s -> levels, bucket size -> blocks. Differs: the entropy code is by
the counts of the levels, in place of Elias's code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from laconic.compressors.compressor import BlockCompressor, as_values
from laconic.compressors.levels import level_variances, levels, levels_outgrow_residual
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import level_bits, norms
from laconic.wire import Levels


@dataclass(frozen=True, kw_only=True)
class QSGD(BlockCompressor):
    """sign(v) ||v||_2 l / s, with l the whole number below or above s |v| / ||v||_2."""

    name: ClassVar[str] = "qsgd"
    unbiased: ClassVar[bool] = True
    test_settings: ClassVar[Mapping[str, Any]] = {"levels": 7, "blocks": "16"}

    levels: int = hyperparameter(7, "s, levels of magnitude above zero", within="[1, 255]", unit="levels")
    blocks: str = hyperparameter(
        "512", 'one norm for the "vector", for each "layer", or for each block of this many elements'
    )
    entropy: bool = hyperparameter(False, "send frequent levels in fewer bits")

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Levels:
        values = as_values(vector)
        lengths = self.lengths(values.numel(), spec)
        return levels(
            values, norms(values, lengths), lengths, self.levels, entropy=self.entropy, offset=offset, key=key
        )

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(Levels, steps=self.levels, lengths=self.lengths(spec.d, spec), entropy=self.entropy)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def variances(self, vector: Tensor, spec: ModelSpec | None = None) -> Tensor:
        """Return (||v|| / s)^2 f (1 - f). The sum over a block is at most min(d / s^2, sqrt(d) / s) ||v||^2."""
        values = as_values(vector)
        lengths = self.lengths(values.numel(), spec)
        return level_variances(values, norms(values, lengths), lengths, self.levels)

    def outgrows_residual(self, spec: ModelSpec) -> bool:
        return levels_outgrow_residual(self.lengths(spec.d, spec), self.levels)

    def paper_bits(self, spec: ModelSpec) -> float:
        return float(level_bits(self.levels) * spec.d + 32 * len(self.lengths(spec.d, spec)))
