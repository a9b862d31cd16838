"""Tensors that make one vector and are used again and again, such as a model's parameters: they are checked once."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Spans = tuple[NDArray[Any], NDArray[Any]]
"""Addresses (n,) uint64 and numbers of elements (n,) int64 of n tensors."""


class CheckedTensors(tuple[Tensor, ...]):
    """Tensors that make one vector.

    What was found of their memory holds while each is contiguous, where it was, and as long as it was: freed, shortened
    or replaced memory is elsewhere. So that is all that a kernel asks of them from the second call on.
    """

    _at: list[int]
    _n_bytes: list[int]
    spans: Spans | None = None
    """Where they are, if they were found to be plain, contiguous and of one type of floats in the CPU's memory."""
    dtype: torch.dtype | None = None
    """That type."""
    total = 0
    """How many elements they have in all."""

    def are_known(self) -> bool:
        """Return whether `spans` still holds."""
        if self.spans is not None and (self._n_bytes, self._at) != (self._sizes(), self._addresses()):
            self.spans = None
        return self.spans is not None

    def know(self, spans: Spans, dtype: torch.dtype) -> None:
        """Remember what was found of them."""
        self.spans, self.dtype, self.total = spans, dtype, int(spans[1].sum())
        self._n_bytes, self._at = self._sizes(), self._addresses()

    def _sizes(self) -> list[int]:
        return [each.nbytes for each in self]

    def _addresses(self) -> list[int]:
        return [each.data_ptr() if each.is_contiguous() else -1 for each in self]
