"""Signs times the mean magnitude of their block: C(v)_b = (||v_b||_1 / d_b) sgn(v_b).

Zheng, Huang, Kwok: Communication-Efficient Distributed Blockwise Momentum SGD with Error-Feedback, NeurIPS 2019.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import BlockCompressor, as_values
from laconic.contract import Accept, ModelSpec
from laconic.kernels.api import ALL_SELECTED, pack_signs, per_block
from laconic.wire import ScaledSigns


def mean_magnitudes(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the mean magnitude of each block, ||v_b||_1 / d_b, summed in float64.

    Args:
        values: (d,) float32 or float64.
        lengths: Sizes of the blocks, which add up to d.

    Returns:
        (blocks,) of the same type.
    """
    sums = per_block(values.abs(), lengths, lambda rows: rows.sum(1, dtype=torch.float64))
    means: Tensor = sums / torch.tensor(lengths, device=values.device)
    return means.to(values.dtype)


def scaled_signs(vector: Tensor, *, lengths: tuple[int, ...], offset: int = 0) -> ScaledSigns:
    """Return the signs of a vector, scaled by the mean magnitude of each block.

    Args:
        vector: (d,) of any float type.
        lengths: Sizes of the blocks, which add up to d.
        offset: Number of the vector's first coordinate in the full model.
    """
    values = as_values(vector)
    packed, _ = pack_signs(values, offset, 0, ALL_SELECTED)
    packet = ScaledSigns(packed=packed, scales=mean_magnitudes(values, lengths), lengths=lengths, offset=offset)
    packet.__dict__["count"] = values.numel()  # the cached property: it is known here
    return packet


@dataclass(frozen=True, kw_only=True)
class ScaledSign(BlockCompressor):
    """The 1-bit compressor of error-feedback methods; per vector, per layer, or per block of B elements."""

    name: ClassVar[str] = "scaled-sign"

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> ScaledSigns:
        return scaled_signs(vector, lengths=self.lengths(vector.numel(), spec), offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(ScaledSigns, lengths=self.lengths(spec.d, spec))

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        """Return ||v_b||_1^2 / (d_b ||v_b||_2^2) of the worst block, at least 1/d_b; 1 for a block of zeros."""
        lengths = self.lengths(vector.numel(), spec)
        return min(_contraction(block) for block in torch.split(vector.double().abs(), list(lengths)))

    def paper_bits(self, spec: ModelSpec) -> float:
        return float(spec.d + 32 * len(self.lengths(spec.d, spec)))


def _contraction(magnitudes: Tensor) -> float:
    """Return ||v||_1^2 / (d ||v||_2^2) of one block of magnitudes (d,) float64."""
    absolute_maximum = magnitudes.max()
    if absolute_maximum == 0:
        return 1.0
    share = (magnitudes / absolute_maximum).sum() ** 2 / (
        magnitudes.numel() * (magnitudes / absolute_maximum).square().sum()
    )
    return min(1.0, float(share))  # rounding may put a constant block a little above 1
