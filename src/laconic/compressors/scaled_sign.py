"""Signs times the mean magnitude of their block: C(v)_b = (||v_b||_1 / d_b) sgn(v_b).

Zheng, Huang, Kwok: Communication-Efficient Distributed Blockwise Momentum SGD with Error-Feedback, NeurIPS 2019.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import BlockCompressor, as_values, block_lengths
from laconic.contract import Accept, Inbox, ModelSpec
from laconic.kernels.api import BlockLengths, answer_scaled_signs, correct_signs, mean_signs, momentum_correct_signs
from laconic.wire import Packet, ScaledSigns


def scaled_signs(vector: Tensor, *, lengths: Sequence[int], offset: int = 0) -> ScaledSigns:
    """Return the signs of a vector, scaled by the mean magnitude of each block.

    Args:
        vector: (d,) of any float type.
        lengths: Sizes of the blocks, which add up to d.
        offset: Number of the vector's first coordinate in the full model.
    """
    return _packet_of(mean_signs(as_values(vector), lengths), lengths, offset)


def _packet_of(made: tuple[Tensor, Tensor], lengths: Sequence[int], offset: int) -> ScaledSigns:
    packed, scales = made
    return ScaledSigns(packed=packed, scales=scales, lengths=BlockLengths.of(lengths), offset=offset)


@dataclass(frozen=True, kw_only=True)
class ScaledSign(BlockCompressor):
    """The 1-bit compressor of error-feedback methods; per vector, per layer, or per block of B elements."""

    name: ClassVar[str] = "scaled-sign"
    reads_key: ClassVar[bool] = False

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> ScaledSigns:
        return scaled_signs(vector, lengths=self.lengths(vector.numel(), spec), offset=offset)

    def with_residual(
        self, vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0,
        spec: ModelSpec | None = None, key: int = 0, offset: int = 0,
    ) -> ScaledSigns:  # fmt: skip
        lengths = block_lengths(self.blocks, vector.shape[0], spec)
        return _packet_of(correct_signs(vector, residual, lengths, divisor=divisor, decay=decay), lengths, offset)

    def with_momentum(
        self, gradient: Tensor, momentum: Tensor, residual: Tensor, new_momentum: Tensor,
        *, mu: float, decay: float, spec: ModelSpec | None = None, offset: int = 0,
    ) -> ScaledSigns:  # fmt: skip
        """Take a step of Nesterov momentum, and compress it with the residual; it is written over the gradient.

            new_momentum = mu momentum + gradient
            gradient <- mu new_momentum + gradient + decay residual

        Args:
            gradient: (d,) float32 or float64, contiguous, overwritten.
            momentum: (d,) of the same type, momentum before the step.
            residual: (d,), what earlier packets left out.
            new_momentum: (d,), contiguous, overwritten.
            mu: The momentum factor.
            decay: Factor of the residual.
            spec: As for a call.
            offset: Number of the vector's first coordinate.
        """  # fmt: skip
        lengths = block_lengths(self.blocks, gradient.shape[0], spec)
        made = momentum_correct_signs(gradient, momentum, residual, new_momentum, lengths, mu=mu, decay=decay)
        return _packet_of(made, lengths, offset)

    def answer(
        self, inbox: Inbox, residual: Tensor, new_vector: Callable[[], Tensor], *, decay: float = 1.0,
        spec: ModelSpec | None = None, key: int = 0, offset: int = 0,
    ) -> tuple[Packet, Tensor]:  # fmt: skip
        lengths = block_lengths(self.blocks, residual.shape[0], spec)
        packed: list[Tensor] = []
        scales: list[Tensor] = []
        for packet in inbox.values():
            if type(packet) is not ScaledSigns or packet.lengths != lengths or packet.dtype != residual.dtype:
                packed = []  # these are not added in one pass
                break
            packed += (packet.packed,)
            scales += (packet.scales,)
        if not packed:
            return super().answer(inbox, residual, new_vector, decay=decay, spec=spec, key=key, offset=offset)
        new_residual = new_vector()
        made = answer_scaled_signs(
            packed, scales, residual, new_residual, lengths, divisor=inbox.n_workers, decay=decay,
        )  # fmt: skip
        return _packet_of(made, lengths, offset), new_residual

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
