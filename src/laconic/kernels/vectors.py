"""Arithmetic on vectors, on the tensors that they are made of, and at indices: a part of the kernels' face."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from laconic.kernels import checks
from laconic.kernels.checked_tensors import CheckedTensors
from laconic.kernels.dispatch import CPU, fastest
from laconic.kernels.reference import finite as reference_finite
from laconic.kernels.reference import sums as reference_sums


def take_at(vector: Tensor, indices: Tensor) -> Tensor:
    """Return the elements of `vector` at indices (k,) int64, ascending, each once; see `reference/indexing.py`."""
    checks.vector("take_at", "vector", vector, None, None, indices.device)
    checks.indices("take_at", "indices", indices, vector.numel())
    return checks.note_place(fastest("indexing", vector.device).take_at(vector, indices))


def add_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """Add `values` (k,), of the vector's type, to `vector` (d,) at the indices, in place."""
    checks.output("add_at", "vector", vector, None, None, indices.device, strided=True)
    checks.vector("add_at", "values", values, (vector.dtype,), indices.numel(), vector.device)
    checks.indices("add_at", "indices", indices, vector.numel())
    fastest("indexing", vector.device).add_at(vector, indices, values)


def elements_of(vector: Tensor, limit: int) -> tuple[Tensor, Tensor] | None:
    """Return where `vector` (d,) is not 0.0, and its elements there: (k,) int64, and (k,). None for k > limit.

    See `reference/indexing.py`.
    """
    checks.vector("elements_of", "vector", vector, checks.FLOATS)
    checks.number("elements_of", "limit", limit, 0, vector.numel())
    made: tuple[Tensor, Tensor] | None = fastest("indexing", vector.device).elements_of(vector, limit)
    return made


def put_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """Overwrite `vector` (d,) by `values` (k,), of its type, at the indices, and by 0 elsewhere."""
    checks.output("put_at", "vector", vector, None, None, indices.device, strided=True)
    checks.vector("put_at", "values", values, (vector.dtype,), indices.numel(), vector.device)
    checks.indices("put_at", "indices", indices, vector.numel())
    fastest("indexing", vector.device).put_at(vector, indices, values)


def clear_at(vector: Tensor, indices: Tensor) -> None:
    """Set `vector` (d,) to 0 at the indices."""
    checks.output("clear_at", "vector", vector, None, None, indices.device, strided=True)
    checks.indices("clear_at", "indices", indices, vector.numel())
    fastest("indexing", vector.device).clear_at(vector, indices)


def add_up(vectors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, from_zero: bool = True) -> float:
    """Write the sum of `vectors`, (d,) each, divided by `divisor`, to `out` (d,), and return its largest magnitude.

    See `reference/sums.py`.
    """
    checks.sum_of("add_up", vectors, out, divisor)
    made: float = fastest("sums", out.device).add_up(vectors, out, divisor=divisor, from_zero=from_zero)
    return made


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float], out: Tensor) -> Tensor:
    """Write the sum of `vectors`, (d,) each, times their `weights` to `out` (d,), and return it.

    See `reference/sums.py`.
    """
    checks.output("weighted_sum", "out", out, checks.ALL_FLOATS)
    checks.factors("weighted_sum", "weight", weights, len(vectors), out.dtype)
    for number, vector in enumerate(vectors):
        checks.vector("weighted_sum", f"vector {number}", vector, (out.dtype,), out.numel())
    are_here = all(vector.device == out.device for vector in vectors)
    sums = fastest("sums", out.device) if are_here else reference_sums
    made: Tensor = sums.weighted_sum(vectors, weights, out)
    return made


def mixed_difference(
    updated: Tensor, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float], out: Tensor
) -> Tensor:
    """Write updated - published + the `weighted_sum` of copies - published to `out`, (d,) each, in one pass.

    See `reference/sums.py`.
    """
    call, dtypes = "mixed_difference", (out.dtype,)
    checks.output(call, "out", out, checks.ALL_FLOATS)
    checks.number(call, "number of copies", len(copies), 1, checks.MAX_COUNT)
    checks.factors(call, "weight", weights, len(copies), out.dtype)
    for name, vector in (("updated", updated), ("published", published), *(("a copy", copy) for copy in copies)):
        checks.vector(call, name, vector, dtypes, out.numel(), out.device)
    made: Tensor = fastest("sums", out.device).mixed_difference(updated, published, copies, weights, out)
    return made


def add_up_rings(vectors: Sequence[Tensor], bounds: Sequence[tuple[int, int]], out: Tensor) -> None:
    """Write the sum of `vectors`, (d,) each, to `out` (d,), slice k in the order of the ring that ends at vector k.

    See `reference/sums.py`. `bounds` are the slices (start, stop), as many as vectors.
    """
    checks.output("add_up_rings", "out", out, checks.ALL_FLOATS)
    checks.number("add_up_rings", "number of slices", len(bounds), len(vectors), len(vectors))
    ends = [stop for _, stop in bounds]
    if [0, *ends] != [*(start for start, _ in bounds), out.numel()] or ends != sorted(ends):
        raise ValueError(f"add_up_rings: bounds must cover 0 .. {out.numel()}, one slice behind the other")
    for number, vector in enumerate(vectors):
        checks.vector("add_up_rings", f"vector {number}", vector, (out.dtype,), out.numel(), out.device)
    fastest("sums", out.device).add_up_rings(vectors, bounds, out)


def divide(vector: Tensor, n: int) -> bool:
    """Divide `vector` (d,) by n in place; return whether n such have a finite sum. See `reference/finite.py`."""
    checks.output("divide", "vector", vector, checks.ALL_FLOATS, strided=True)
    checks.number("divide", "n", n, 1, checks.MAX_COUNT)
    if vector.dtype not in checks.FLOATS or not vector.is_contiguous():
        return reference_finite.divide(vector, n)
    made: bool = fastest("finite", vector.device).divide(vector, n)
    return made


def absolute_maximum(vector: Tensor) -> float:
    """Return the largest magnitude of `vector` (d,): NaN if it has one, 0 if it is empty. See `reference/finite.py`."""
    checks.vector("absolute_maximum", "vector", vector, checks.ALL_FLOATS)
    if not vector.is_cpu or vector.dtype not in checks.FLOATS or not vector.is_contiguous():
        return reference_finite.absolute_maximum(vector)
    made: float = fastest("finite").absolute_maximum(vector)
    return made


def all_finite(vector: Tensor) -> bool:
    """Return whether no element of `vector` (d,) is inf or NaN; see `reference/finite.py`."""
    checks.tensors("all_finite", [vector])
    if vector.ndim != 1:
        raise TypeError(f"all_finite: vector has the shape {tuple(vector.shape)}; pass its .reshape(-1)")
    is_plain = checks.is_plain(vector) and vector.is_contiguous()
    if vector.device.type != "cpu" or vector.dtype not in checks.FLOATS or not is_plain:
        return reference_finite.all_finite(vector)
    made: bool = fastest("finite").all_finite(vector)
    return made


def are_sizes(scales: Tensor) -> bool:
    """Return whether scales of blocks are finite and not below zero; see `reference/finite.py`, also below."""
    return _checked_ends("are_sizes", scales)


def are_ranges(lows: Tensor, highs: Tensor) -> bool:
    """Return whether the ends of ranges of blocks are finite, and each low end at most its high end."""
    return _checked_ends("are_ranges", lows, highs)


def _checked_ends(call: str, *ends: Tensor) -> bool:
    """Return what a check of numbers of blocks finds."""
    for name, each in zip(("lows", "highs") if len(ends) == 2 else ("scales",), ends, strict=True):
        checks.vector(call, name, each, checks.ALL_FLOATS, ends[0].numel(), ends[0].device)
    is_plain = all(each.dtype in checks.FLOATS and each.is_contiguous() for each in ends)
    backend = (
        fastest("finite") if ends[0].device.type == "cpu" and is_plain and ends[0].dtype == ends[-1].dtype else None
    )
    made: bool = getattr(backend or reference_finite, call)(*ends)
    return made


def gather(tensors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, limit: float | None = None) -> bool:
    """Copy tensors into `out` (d,), divided; return whether all is finite. See `reference/flatten.py`, also below."""
    checks.vector("gather", "out", out, checks.ALL_FLOATS, written=True, strided=True)
    tensors = CheckedTensors.of(tensors)
    checks.tensors("gather", tensors, out.shape[0])
    if not 1 <= divisor <= checks.MAX_COUNT:
        checks.number("gather", "divisor", divisor, 1, checks.MAX_COUNT)
    made: bool = fastest("flatten", out.device).gather(tensors, out, divisor=divisor, limit=limit)
    return made


def gather_largest(tensors: Sequence[Tensor], out: Tensor) -> float:
    """Copy tensors into `out` (d,); return the largest magnitude, NaN if it has one. See `reference/flatten.py`."""
    checks.output("gather_largest", "out", out, checks.ALL_FLOATS, strided=True)
    tensors = CheckedTensors.of(tensors)
    checks.tensors("gather_largest", tensors, out.shape[0])
    made: float = fastest("flatten", out.device).gather_largest(tensors, out)
    return made


def equals(tensors: Sequence[Tensor], vector: Tensor) -> bool:
    """Return whether tensors have the values of `vector` (d,), and its zeros' signs. See `reference/flatten.py`."""
    checks.vector("equals", "vector", vector, checks.ALL_FLOATS)
    checks.tensors("equals", tensors, vector.numel())
    made: bool = fastest("flatten", vector.device).equals(tensors, vector)
    return made


def gather_change(tensors: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """Write tensors less `start` (d,), plus `plus` (d,), to `out`; return whether all elements are finite."""
    checks.output("gather_change", "out", out, checks.ALL_FLOATS, strided=True)
    checks.vector("gather_change", "start", start, checks.ALL_FLOATS, out.numel(), out.device)
    if plus is not None:
        checks.vector("gather_change", "plus", plus, checks.ALL_FLOATS, out.numel(), out.device)
    checks.tensors("gather_change", tensors, out.numel())
    made: bool = fastest("flatten", out.device).gather_change(tensors, start, out, plus)
    return made


def gather_scaled(
    tensors: Sequence[Tensor],
    factors: Sequence[float],
    out: Tensor,
    plus: Tensor | Sequence[Tensor] | None = None,
    *,
    divisor: int = 1,
) -> bool:
    """Write each tensor times its factor, plus `plus`, divided, to `out` (d,); return whether all is finite.

    `plus` is (d,), or tensors of the same sizes. See `reference/flatten.py`.
    """
    checks.output("gather_scaled", "out", out, checks.ALL_FLOATS, strided=True)
    checks.number("gather_scaled", "number of factors", len(factors), len(tensors), len(tensors))
    checks.number("gather_scaled", "divisor", divisor, 1, checks.MAX_COUNT)
    if isinstance(plus, Tensor):
        checks.vector("gather_scaled", "plus", plus, checks.ALL_FLOATS, out.numel(), out.device)
    elif plus is not None:
        checks.number("gather_scaled", "number of tensors to add", len(plus), len(tensors), len(tensors))
        checks.tensors("gather_scaled", plus, out.numel())
    checks.tensors("gather_scaled", tensors, out.numel())
    made: bool = fastest("flatten", out.device).gather_scaled(tensors, factors, out, plus, divisor=divisor)
    return made


def gather_distance(tensors: Sequence[Tensor], other: Tensor, out: Tensor) -> float:
    """Copy tensors into `out` (d,); return its squared distance from `other`. See `reference/distances.py`."""
    tensors = CheckedTensors.of(tensors)
    checks.output("gather_distance", "out", out, checks.FLOATS)
    checks.vector("gather_distance", "other", other, (out.dtype,), out.numel(), out.device)
    checks.tensors("gather_distance", tensors, out.numel())
    made: float = fastest("distances", out.device).gather_distance(tensors, other, out)
    return made


def squared_distance(tensors: Sequence[Tensor], others: Sequence[Tensor], *, limit: float = math.inf) -> float:
    """Return ||v - w||^2, where tensors make v and others w, or more than `limit`; see `reference/distances.py`."""
    tensors, others = CheckedTensors.of(tensors), CheckedTensors.of(others)
    checks.number("squared_distance", "number of tensors", len(tensors), 1, checks.MAX_COUNT)
    checks.tensors("squared_distance", others, checks.tensors("squared_distance", tensors))
    made: float = fastest("distances", tensors[0].device).squared_distance(tensors, others, limit=limit)
    return made


def step_along_mean(values: Tensor, vectors: Sequence[Tensor], *, divisor: int, lr: float) -> None:
    """Take a step of plain SGD from `values` (d,) along the sum of `vectors`, (d,) each, divided by `divisor`.

    See `reference/steps.py`.
    """
    checks.output("step_along_mean", "values", values, checks.ALL_FLOATS)
    checks.number("step_along_mean", "number of vectors", len(vectors), 1, checks.MAX_COUNT)
    checks.number("step_along_mean", "divisor", divisor, 1, checks.MAX_COUNT)
    checks.factors("step_along_mean", "lr", (lr,), 1, values.dtype)
    for number, vector in enumerate(vectors):
        checks.vector("step_along_mean", f"vector {number}", vector, (values.dtype,), values.numel(), values.device)
    fastest("steps", values.device).step_along_mean(values, vectors, divisor=divisor, lr=lr)
    increment_version(values)


def gather_mean_step(
    tensors: Sequence[Tensor], factors: Sequence[float], vectors: Sequence[Tensor], out: Tensor, *, divisor: int
) -> tuple[float, int]:
    """Write tensors plus each its factor times the sum of `vectors`, (d,) each, divided, to `out` (d,).

    Returns its largest magnitude and its CRC-32. See `reference/steps.py`.
    """
    tensors = CheckedTensors.of(tensors)
    checks.output("gather_mean_step", "out", out, checks.ALL_FLOATS)
    checks.factors("gather_mean_step", "factor", factors, len(tensors), out.dtype)
    checks.number("gather_mean_step", "number of vectors", len(vectors), 1, checks.MAX_COUNT)
    checks.number("gather_mean_step", "divisor", divisor, 1, checks.MAX_COUNT)
    for number, vector in enumerate(vectors):
        checks.vector("gather_mean_step", f"vector {number}", vector, (out.dtype,), out.numel(), out.device)
    checks.tensors("gather_mean_step", tensors, out.numel())
    made: tuple[float, int] = fastest("steps", out.device).gather_mean_step(
        tensors, factors, vectors, out, divisor=divisor
    )
    return made


def gather_step(
    tensors: Sequence[Tensor], gradients: Sequence[Tensor], factors: Sequence[float], out: Tensor, *, adds: bool
) -> tuple[float, int]:
    """Write to `out` (d,) what a step of plain SGD adds to tensors, plus the tensors where `adds`.

    Returns its largest magnitude and its CRC-32. See `reference/steps.py`.
    """
    tensors, gradients = CheckedTensors.of(tensors), CheckedTensors.of(gradients)
    checks.output("gather_step", "out", out, checks.ALL_FLOATS, strided=True)
    checks.factors("gather_step", "factor", factors, len(tensors), out.dtype)
    _check_pairs("gather_step", tensors, gradients, out.numel())
    made: tuple[float, int] = fastest("steps", out.device).gather_step(tensors, gradients, factors, out, adds=adds)
    return made


def step_difference(
    tensors: Sequence[Tensor], gradients: Sequence[Tensor], factors: Sequence[float], published: Tensor,
    copies: Sequence[Tensor], weights: Sequence[float], out: Tensor,
) -> tuple[float, tuple[Tensor, Tensor]]:  # fmt: skip
    """Write `mixed_difference` of what a step of plain SGD leads to, in one pass.

    Returns the largest magnitude of what it leads to, and the ends of `out` (d,). See `reference/steps.py`.
    """
    tensors, gradients = CheckedTensors.of(tensors), CheckedTensors.of(gradients)
    call, dtypes = "step_difference", (out.dtype,)
    checks.output(call, "out", out, checks.FLOATS)
    checks.factors(call, "factor", factors, len(tensors), out.dtype)
    _check_pairs(call, tensors, gradients, out.numel())
    checks.number(call, "number of copies", len(copies), 1, checks.MAX_COUNT)
    checks.factors(call, "weight", weights, len(copies), out.dtype)
    for name, vector in (("published", published), *(("a copy", copy) for copy in copies)):
        checks.vector(call, name, vector, dtypes, out.numel(), out.device)
    made: tuple[float, tuple[Tensor, Tensor]] = fastest("steps", out.device).step_difference(
        tensors, gradients, factors, published, copies, weights, out
    )
    return made


def _check_pairs(call: str, tensors: Sequence[Tensor], gradients: Sequence[Tensor], count: int) -> None:
    for each in (tensors, gradients):
        checks.tensors(call, each, count)
    if list(map(Tensor.numel, tensors)) != list(map(Tensor.numel, gradients)):
        raise ValueError(f"{call}: gradients must have as many elements as their tensors, one by one")


def descend(tensors: Sequence[Tensor], gradients: Sequence[Tensor], *, factor: float) -> None:
    """Add `factor` times its gradient, of as many elements, to each tensor: to the bits of a step of torch's SGD.

    See `reference/descents.py`.
    """
    gradients = CheckedTensors.of(gradients)
    d = checks.tensors("descend", tensors, written=True)
    checks.factors("descend", "factor", (factor,), 1, tensors[0].dtype if tensors else torch.float32)
    _check_pairs("descend", tensors, gradients, d)
    if not all(map(Tensor.is_floating_point, (*tensors, *gradients))):
        raise TypeError("descend: tensors and gradients must be of floats")
    fastest("descents", tensors[0].device if tensors else CPU).descend(tensors, gradients, factor=factor)
    increment_version(tensors)


def add_into(tensors: Sequence[Tensor], indices: Tensor, values: Tensor) -> None:
    """Add `values` (k,) to tensors at indices (k,) int64 of the vector that they make."""
    d = checks.tensors("add_into", tensors, written=True)
    checks.vector("add_into", "values", values, checks.ALL_FLOATS, indices.numel(), indices.device)
    checks.indices("add_into", "indices", indices, d)
    if not indices.numel():
        return
    fastest("flatten", values.device).add_into(tensors, indices, values)
    increment_version(tensors)


def step_at(tensors: Sequence[Tensor], indices: Tensor, values: Tensor, *, factor: float) -> None:
    """Add `factor` times `values` (k,) to the vector that tensors make, at indices (k,) int64.

    To the bits of a step of torch's SGD; see `reference/indexing.py`.
    """
    d = checks.tensors("step_at", tensors, written=True)
    checks.vector("step_at", "values", values, checks.ALL_FLOATS, indices.numel(), indices.device)
    checks.indices("step_at", "indices", indices, d)
    if not indices.numel():
        return
    fastest("indexing", values.device).step_at(tensors, indices, values, factor=factor)
    increment_version(tensors)


def scatter(vector: Tensor, tensors: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """Copy `vector` (d,) into tensors; as_sum makes -0.0 to 0.0, as adding 0.0 does."""
    checks.vector("scatter", "vector", vector, checks.ALL_FLOATS)
    checks.tensors("scatter", tensors, vector.numel(), written=True)
    fastest("flatten", vector.device).scatter(vector, tensors, as_sum=as_sum)
    increment_version(tensors)


def scatter_packed_signs(packed: Tensor, factors: Sequence[float], tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors, one behind the other, by signs times a factor for each tensor; see `reference/flatten.py`."""
    checks.number("scatter_packed_signs", "number of factors", len(factors), len(tensors), len(tensors))
    d = checks.tensors("scatter_packed_signs", tensors, written=True)
    checks.packed("scatter_packed_signs", "packed", packed, d, tensors[0].device if tensors else None)
    fastest("flatten", packed.device).scatter_packed_signs(packed, factors, tensors)
    increment_version(tensors)
