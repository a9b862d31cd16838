"""What every compressor is, and what it may claim."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.hyperparameters import check_hyperparameters
from laconic.wire import Packet


@dataclass(frozen=True, kw_only=True)
class Compressor(ABC):
    """Claims are data; `tests/compressors` checks each on random, heavy-tailed and degenerate input.

    unbiased: the packet's dense form has the vector as its mean over keys.
    separable: compressing a slice gives the slice of the compressed whole.
    """

    name: ClassVar[str]
    unbiased: ClassVar[bool] = False
    separable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_hyperparameters(self, self.name)

    @abstractmethod
    def __call__(self, vector: Tensor, *, layers: Sequence[int] = (), key: int = 0, offset: int = 0) -> Packet:
        """Compress `vector` (d,).

        layers: the model's parameter sizes, adding up to d; empty for one layer. key: the draw's key, where a
        draw is made. first: the number of the vector's first coordinate in the whole model.
        """

    @abstractmethod
    def delta(self, vector: Tensor, layers: Sequence[int] = ()) -> float | None:
        """The contraction this compressor promises on `vector`: ||C(v) - v||^2 <= (1 - delta) ||v||^2.

        None when it promises none.
        """

    def variances(self, vector: Tensor, layers: Sequence[int] = ()) -> Tensor | None:
        """E (C(v)_i - v_i)^2 over keys for every element of `vector` (d,), exactly: (d,) float64.

        None where no formula is known; a compressor that is unbiased has one.
        """
        return None

    def outgrows_residual(self, d: int, layers: Sequence[int] = ()) -> bool:
        """Whether a residual under it is known to grow without bound: what it leaves out outweighs what it is given.

        False where that is not known. d, layers: as for a call.
        """
        return False

    @abstractmethod
    def paper_bits(self, d: int, layers: Sequence[int] = ()) -> float:
        """What the papers' formula charges for d coordinates, in expectation."""


def warn_of_growing_residual(method: str, key: str, compressor: Compressor, d: int, layers: Sequence[int]) -> None:
    """Warn where a method with error feedback is given a compressor under which its residual grows.

    method: its name; key: that of the setting.
    """
    if compressor.outgrows_residual(d, layers):
        warnings.warn(
            f"{method}: what {key}={compressor.name} leaves out is larger than the vector itself, so the residual "
            f"grows "
            f"from round to round and training diverges; take finer settings (`laconic show {method}`), a compressor "
            "that contracts, such as scaled-sign or top-k, or csgd, which has no residual",
            stacklevel=5,  # who made the simulation or the optimizer
        )


def as_values(vector: Tensor) -> Tensor:
    """The vector as the arithmetic wants it: contiguous float32 or float64; other float types become float32.

    Raises TypeError for anything that is not a flat vector of floats.
    """
    if vector.ndim != 1 or not vector.is_floating_point():
        raise TypeError(
            f"a compressor takes a flat vector of floats, not {vector.dtype} of shape {tuple(vector.shape)}"
        )
    return vector.contiguous() if vector.dtype in (torch.float32, torch.float64) else vector.float()
