"""A sign and a level for every value: levels of equal ratio, each decoded as the mean magnitude within it.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, section 4.3.2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import MEAN_TOLERANCE, fractional_codes
from laconic.wire import FractionalValues


def fractional(vector: Tensor, *, bits: int, offset: int = 0) -> FractionalValues:
    """Quantize a vector.

    Args:
        vector: (d,) of any float type.
        bits: Bits of a value, its sign included, 1 .. 16.
        offset: Number of the vector's first coordinate in the full model.
    """
    values = as_values(vector)
    packed, means = fractional_codes(values, bits)
    return FractionalValues(packed=packed, count=values.numel(), means=means, bits=bits, offset=offset)


@dataclass(frozen=True, kw_only=True)
class Fractional(Compressor):
    """2**(bits-1) levels of magnitude. With one bit it is the scaled sign of the full vector."""

    name: ClassVar[str] = "fractional"

    bits: int = hyperparameter(4, "q, bits of a value, its sign included", within="[1, 16]", unit="bits")

    def __call__(
        self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0
    ) -> FractionalValues:
        return fractional(vector, bits=self.bits, offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(FractionalValues, bits=self.bits)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        """Return the sum over levels of n_l mu_l^2, divided by ||v||^2, less the tolerance of the means.

        The means of the levels are a projection of the magnitudes.
        """
        values = as_values(vector)
        magnitudes = values.double().abs()
        absolute_maximum = magnitudes.max()
        if absolute_maximum == 0:
            return 1.0
        levels = fractional(values, bits=self.bits).levels.long()
        sums = torch.zeros(1 << (self.bits - 1), dtype=torch.float64, device=values.device)
        sums.index_add_(0, levels, magnitudes / absolute_maximum)
        counts = levels.bincount(minlength=len(sums))
        share = (sums.square() / counts.clamp(min=1)).sum() / (magnitudes / absolute_maximum).square().sum()
        return min(1.0, float(share)) * (1 - MEAN_TOLERANCE[values.dtype] ** 2)

    def paper_bits(self, spec: ModelSpec) -> float:
        return float(self.bits * spec.d)
