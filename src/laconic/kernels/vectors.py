"""Arithmetic on vectors, on the tensors that they are made of, and at indices: a part of the kernels' face."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from laconic.kernels.dispatch import fastest
from laconic.kernels.reference import finite as reference_finite


def take_at(vector: Tensor, indices: Tensor) -> Tensor:
    """Return the elements of `vector` at indices (k,) int64, ascending, each once; see `reference/indexing.py`."""
    made: Tensor = fastest("indexing", vector.device).take_at(vector, indices)
    return made


def add_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """Add `values` (k,), of the vector's type, to `vector` (d,) at the indices, in place."""
    fastest("indexing", vector.device).add_at(vector, indices, values)


def clear_at(vector: Tensor, indices: Tensor) -> None:
    """Set `vector` (d,) to 0 at the indices."""
    fastest("indexing", vector.device).clear_at(vector, indices)


def divide(vector: Tensor, n: int) -> bool:
    """Divide `vector` (d,) by n in place; return whether n such have a finite sum. See `reference/finite.py`."""
    if vector.dtype not in (torch.float32, torch.float64):
        return reference_finite.divide(vector, n)
    made: bool = fastest("finite", vector.device).divide(vector, n)
    return made


def absolute_maximum(vector: Tensor) -> float:
    """Return the largest magnitude of `vector` (d,): NaN if it has one, 0 if it is empty. See `reference/finite.py`."""
    if vector.device.type != "cpu" or vector.dtype not in (torch.float32, torch.float64) or not vector.is_contiguous():
        return reference_finite.absolute_maximum(vector)
    made: float = fastest("finite").absolute_maximum(vector)
    return made


def all_finite(vector: Tensor) -> bool:
    """Return whether no element of `vector` (d,) is inf or NaN; see `reference/finite.py`."""
    if vector.device.type != "cpu" or vector.dtype not in (torch.float32, torch.float64) or not vector.is_contiguous():
        return reference_finite.all_finite(vector)
    made: bool = fastest("finite").all_finite(vector)
    return made


def gather(tensors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, limit: float | None = None) -> bool:
    """Copy tensors into `out` (d,), divided; return whether all is finite. See `reference/flatten.py`, also below."""
    made: bool = fastest("flatten", out.device).gather(tensors, out, divisor=divisor, limit=limit)
    return made


def gather_change(tensors: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """Write tensors less `start` (d,), plus `plus` (d,), to `out`; return whether all elements are finite."""
    made: bool = fastest("flatten", out.device).gather_change(tensors, start, out, plus)
    return made


def gather_scaled(tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None = None) -> bool:
    """Write each tensor times its factor, plus `plus` (d,), to `out`; return whether all elements are finite."""
    made: bool = fastest("flatten", out.device).gather_scaled(tensors, factors, out, plus)
    return made


def add_into(tensors: Sequence[Tensor], indices: Tensor, values: Tensor) -> None:
    """Add `values` (k,) to tensors at indices (k,) int64 of the vector that they make."""
    fastest("flatten", values.device).add_into(tensors, indices, values)
    for tensor in tensors:
        increment_version(tensor)


def scatter(vector: Tensor, tensors: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """Copy `vector` (d,) into tensors; as_sum makes -0.0 to 0.0, as adding 0.0 does."""
    fastest("flatten", vector.device).scatter(vector, tensors, as_sum=as_sum)
    for tensor in tensors:
        increment_version(tensor)
