"""Unbiased rounding to a fixed grid, whose error does not vanish with the vector.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020: assumption 4 as it is printed, which no
compressor relative to its input satisfies. It is here for the fit of CSGD, and none that a user can name.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors import COMPRESSORS, Compressor, dense
from laconic.contract import DENSE, Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.random_keys.streams import words
from laconic.wire import Dense


@dataclass(frozen=True, kw_only=True)
class FixedGrid(Compressor):
    """Rounding up or down at random: E ||Q(v) - v||^2 is at most d D^2 / 4, so sigma' = D sqrt(d) / 2."""

    name: ClassVar[str] = "fixed-grid"
    unbiased: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    width: float = hyperparameter(1.0, "D, distance of two grid points", within="(0, inf)")

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Dense:
        shares = torch.from_numpy((words(key, vector.numel(), offset) >> 11) * 2.0**-53)
        return dense(((vector.double() / self.width + shares).floor() * self.width).to(vector), offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return DENSE

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def paper_bits(self, spec: ModelSpec) -> float:
        return 32.0 * spec.d


def offer_fixed_grid() -> None:
    """Let settings of methods in this process name it."""
    COMPRESSORS.setdefault(FixedGrid.name, FixedGrid)
