"""The signs of elements that a keyed draw selects, times their mean magnitude: C(v) = (||v_S||_1 / |S|) sgn(v_S).

Phong, Phuong: Distributed SignSGD With Improved Accuracy and Network-Fault Tolerance, IEEE Access 2020, Table 1, counts
0.3d + 32 bits for the upload of Phuong, Phong: Distributed SGD with Flexible Gradient Compression, IEEE Access 2020:
signs of a share of the elements, and one scale. Which elements and which scale is our reading: a keyed mask, as in
DropSignSGD, and the scale of least squares on it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.compressors.sign import signs, threshold_of
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import ALL_SELECTED, take_selected
from laconic.wire import SelectedSigns


@dataclass(frozen=True, kw_only=True)
class SelectedSign(Compressor):
    """sgn(v) times one scale where the mask selects, else 0. It never adds to the error, and contracts on average.

    ||C(v) - v||^2 = ||v||^2 - ||v_S||_1^2 / |S|.
    """

    name: ClassVar[str] = "selected-sign"

    keep: float = hyperparameter(0.3, "share of elements whose sign is sent", within="(0, 1]")

    def __call__(
        self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0
    ) -> SelectedSigns:
        values = as_values(vector)
        made = signs(values, keep=self.keep, key=key, offset=offset)
        magnitudes = take_selected(values, 1.0, offset, key, made.threshold).abs()
        total = magnitudes.sum(dtype=torch.float64) / max(made.n_selected, 1)
        return SelectedSigns(signs=made, scale=total.to(values.dtype).reshape(1))

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(SelectedSigns, threshold=threshold_of(self.keep), stream=stream)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None  # a draw may select nothing

    def paper_bits(self, spec: ModelSpec) -> float:
        return spec.d * (threshold_of(self.keep) / ALL_SELECTED) + 32
