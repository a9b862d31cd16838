"""Signs times the mean magnitude of their block: C(v)_b = (||v_b||_1 / d_b) sgn(v_b).

Zheng, Huang, Kwok: Communication-Efficient Distributed Blockwise Momentum SGD with Error-Feedback, NeurIPS 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.knobs import knob
from laconic.wire import ScaledSigns
from laconic.wire.scaled_signs import uniform_lengths, uniform_size


def block_lengths(blocks: str, d: int, layers: Sequence[int]) -> tuple[int, ...]:
    """The sizes of the blocks: "vector" is one block, "layer" one a parameter, a number that many entries each.

    `layers` must add up to d, or be empty for one layer. A parameter without entries gets no block.
    """
    if blocks == "vector" or (blocks == "layer" and not layers):
        return (d,)
    if blocks == "layer":
        assert sum(layers) == d, (sum(layers), d)
        return tuple(length for length in layers if length)
    return uniform_lengths(int(blocks), d)


def mean_magnitudes(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """||v_b||_1 / d_b for each block: (blocks,) of v's dtype, added up in float64."""
    size = uniform_size(lengths)
    if size:
        whole = values.numel() // size
        sums = values[: whole * size].abs().view(whole, size).sum(1, dtype=torch.float64)
        if whole < len(lengths):
            sums = torch.cat([sums, values[whole * size :].abs().sum(dtype=torch.float64)[None]])
    else:
        sums = torch.stack([block.abs().sum(dtype=torch.float64) for block in torch.split(values, list(lengths))])
    return (sums / torch.tensor(lengths, device=values.device)).to(values.dtype)


def scaled_signs(vector: Tensor, *, lengths: tuple[int, ...], first: int = 0) -> ScaledSigns:
    """Compress `vector` (d,) in blocks of the given lengths, which add up to d."""
    values = as_values(vector)
    return ScaledSigns(negative=values < 0, scales=mean_magnitudes(values, lengths), lengths=lengths, first=first)


@dataclass(frozen=True, kw_only=True)
class ScaledSign(Compressor):
    """The 1-bit compressor of error-feedback methods; per vector, per layer, or per block of B entries."""

    name: ClassVar[str] = "scaled-sign"

    blocks: str = knob("layer", 'one scale a "vector", a "layer", or this many entries')

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks not in ("vector", "layer") and not (self.blocks.isdecimal() and int(self.blocks) >= 1):
            raise ValueError(
                f'{self.name}: blocks={self.blocks!r} must be "vector", "layer" or a whole number of entries above 0'
            )

    def __call__(self, vector: Tensor, *, layers: Sequence[int] = (), key: int = 0, first: int = 0) -> ScaledSigns:
        return scaled_signs(vector, lengths=block_lengths(self.blocks, vector.numel(), layers), first=first)

    def delta(self, vector: Tensor, layers: Sequence[int] = ()) -> float | None:
        """The worst block's ||v_b||_1^2 / (d_b ||v_b||_2^2), which is at least 1/d_b; 1 for an all-zero block."""
        lengths = block_lengths(self.blocks, vector.numel(), layers)
        return min(_share_kept(block) for block in torch.split(vector.double().abs(), list(lengths)))

    def paper_bits(self, d: int, layers: Sequence[int] = ()) -> float:
        return float(d + 32 * len(block_lengths(self.blocks, d, layers)))


def _share_kept(magnitudes: Tensor) -> float:
    """||v||_1^2 / (d ||v||_2^2) of one block: (d,) float64, not negative."""
    peak = magnitudes.max()
    if peak == 0:
        return 1.0
    share = (magnitudes / peak).sum() ** 2 / (magnitudes.numel() * (magnitudes / peak).square().sum())
    return min(1.0, float(share))  # rounding may leave a constant block a hair above 1
