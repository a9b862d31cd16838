"""Tensors that make one vector and are used again and again, such as a model's parameters: they are checked once."""

from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

Spans = tuple[NDArray[Any], NDArray[Any]]
"""Addresses (n,) uint64 and numbers of elements (n,) int64 of n tensors."""

_FLOATS = ({torch.float32}, {torch.float64})
_PLAIN_TYPES = {Tensor, Parameter}
_dtype_of, _layout_of, _is_on_cpu, _n_bytes_of = map(attrgetter, ("dtype", "layout", "is_cpu", "nbytes"))


@lru_cache(maxsize=256)
def _arrays_of(addresses: tuple[int, ...], sizes: tuple[int, ...]) -> Spans:
    """Return them as arrays, which nobody writes to: gradients mostly lie where others were that are gone."""
    return np.array(addresses, np.uint64), np.array(sizes, np.int64)


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

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Self:
        """Return tensors as these; what was found of them is kept where they are already."""
        return tensors if type(tensors) is cls else cls(tensors)

    def are_known(self) -> bool:
        """Return whether `spans` still holds."""
        if self.spans is not None and (self._n_bytes, self._at) != (self._sizes(), self._addresses()):
            self.spans = None
        return self.spans is not None

    def look(self) -> bool:
        """Find `spans`, in calls that run over all of the tensors; return False where one is out of the ordinary."""
        dtypes, self.spans = set(map(_dtype_of, self)), None
        if dtypes not in _FLOATS or not set(map(type, self)) <= _PLAIN_TYPES:
            return False
        if set(map(_is_on_cpu, self)) != {True} or set(map(_layout_of, self)) != {torch.strided}:
            return False
        try:
            if not all(map(Tensor.is_contiguous, self)) or any(map(Tensor.is_neg, self)):
                return False
            storages = list(map(Tensor.untyped_storage, self))
            starts = list(map(torch.UntypedStorage.data_ptr, storages))
            self._n_bytes, self._at = list(map(_n_bytes_of, self)), list(map(Tensor.data_ptr, self))
        except (RuntimeError, NotImplementedError):  # of a wrapper without storage
            return False
        offsets, lengths = map(Tensor.storage_offset, self), map(torch.UntypedStorage.nbytes, storages)
        for each, n_bytes, offset, length, start in zip(self, self._n_bytes, offsets, lengths, starts, strict=True):
            if n_bytes and (not start or offset * each.itemsize + n_bytes > length):
                return False
        sizes = tuple(map(Tensor.numel, self))
        self.spans = _arrays_of(tuple(self._at), sizes)
        (self.dtype,), self.total = dtypes, sum(sizes)
        return True

    def _sizes(self) -> list[int]:
        return list(map(_n_bytes_of, self))

    def _addresses(self) -> list[int]:
        return list(map(Tensor.data_ptr, self)) if all(map(Tensor.is_contiguous, self)) else []
