"""A flat vector and the tensors that it is made of, compiled: one thread, one pass, the same bits.

Reference: `reference/flatten.py`. A vector that no cache holds is stored past the caches: an ordinary store first reads
the line that it overwrites. Loops over 64 elements are LLVM lanes (`docs/kernels.md`), the elements around them plain.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.checked_tensors import CheckedTensors, Spans
from laconic.kernels.checks import FLOATS, is_plain
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.llvm.vectors import LANES, WORD, Block, Codegen, full_blocks, intrinsic, same, splat, types
from laconic.kernels.reference import flatten as reference_flatten
from laconic.kernels.reference.finite import max_quotient

Array = NDArray[Any]

PAST_CACHES_BYTES = 1 << 24  # from so many on, a vector leaves the caches before it is read again


def gather(tensors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, limit: float | None = None) -> bool:
    """See `reference.flatten.gather`."""
    spans = spans_of(tensors, out)
    if spans is None:
        return reference_flatten.gather(tensors, out, divisor=divisor, limit=limit)
    if divisor == 1 and limit is None:
        return bool(_gather(*spans, out.numpy(), is_long(out)))
    limit_ = max_quotient(out.dtype, divisor) if limit is None else limit
    return bool(_gather_shares(*spans, out.numpy(), float(divisor), limit_, is_long(out)))


def gather_change(tensors: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """See `reference.flatten.gather_change`."""
    others = [start] if plus is None else [start, plus]
    spans = spans_of(tensors, out)
    if spans is None or not are_contiguous_floats(others, out.dtype):
        return reference_flatten.gather_change(tensors, start, out, plus)
    arrays = start.numpy(), others[-1].numpy(), out.numpy()
    return bool(_gather_change(*spans, *arrays, plus is not None, is_long(out)))


def gather_scaled(tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None = None) -> bool:
    """See `reference.flatten.gather_scaled`."""
    spans = spans_of(tensors, out)
    if spans is None or not are_contiguous_floats([] if plus is None else [plus], out.dtype):
        return reference_flatten.gather_scaled(tensors, factors, out, plus)
    more = np.zeros(0, out.numpy().dtype) if plus is None else plus.numpy()
    return bool(_gather_scaled(*spans, np.array(factors), more, out.numpy(), is_long(out)))


def add_into(tensors: Sequence[Tensor], indices: Tensor, values: Tensor) -> None:
    """See `reference.flatten.add_into`."""
    spans = spans_of(tensors, values)
    if spans is None:
        reference_flatten.add_into(tensors, indices, values)
        return
    _add_into(*spans, indices.contiguous().numpy(), values.numpy())


def scatter(vector: Tensor, tensors: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """See `reference.flatten.scatter`."""
    spans = spans_of(tensors, vector)
    if spans is None:
        reference_flatten.scatter(vector, tensors, as_sum=as_sum)
        return
    _scatter(*spans, vector.numpy(), as_sum, is_long(vector))


def spans_of(tensors: Sequence[Tensor], vector: Tensor) -> Spans | None:
    """Return where tensors are, if they and the vector are plain, contiguous, and float32 or float64; else None.

    `checks` has seen that the vector is plain and all have memory, and looks again at tensors that it has seen before.
    """
    if vector.dtype not in FLOATS or not vector.is_contiguous() or not vector.is_cpu:
        return None
    checked = tensors if type(tensors) is CheckedTensors else CheckedTensors(tensors)
    if checked.spans is None and not checked.look():
        return None
    return checked.spans if checked.dtype is vector.dtype else None


def are_contiguous_floats(tensors: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Return whether all are plain and contiguous, in the CPU's memory, and all float32, or all float64: `dtype`."""
    if dtype not in FLOATS:
        return False
    for tensor in tensors:
        if tensor.dtype is not dtype or not tensor.is_contiguous() or not is_plain(tensor) or not tensor.is_cpu:
            return False
    return True


def is_long(vector: Tensor) -> bool:
    """Return whether a vector is stored past the caches."""
    return vector.nbytes >= PAST_CACHES_BYTES


@intrinsic  # type: ignore[untyped-decorator]
def pointer_to(typing: Any, address: Any) -> Codegen:  # noqa: ANN401
    """Return an address, uint64, as a pointer that `carray` takes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        # integer -> pointer
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.uint64), codegen


def _passing(kind: str, past: bool) -> Any:  # noqa: ANN401
    """Return an intrinsic of (one, other, more, out, place) that copies 64 elements of `one` to `out`, or changes them.

    It returns a uint64 that is 0 where no result is inf or NaN.

    Args:
        kind: "same" copies, "change" subtracts `other`, "corrected" subtracts `other` and adds `more`, "sum" adds 0.0.
        past: Store past the caches.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def passing(typing: Any, one: Any, other: Any, more: Any, out: Any, place: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            one, other, more, out, place = args
            block = Block(context, builder, signature.args, place)
            wrong = ir.Constant(ir.IntType(block.LANES), 0)
            for lane in range(0, LANES, block.LANES):
                block.lane = lane
                # lanes: one, less `other`, plus `more`, or plus 0.0 -> out
                value = block.read(one, 0)
                zeros = same(value.type, 0.0)
                if kind in ("change", "corrected"):
                    value = builder.fsub(value, block.read(other, 1))
                if kind == "corrected":
                    value = builder.fadd(value, block.read(more, 2))
                elif kind == "sum":
                    value = builder.fadd(value, zeros)
                block.write(value, out, 3, past_caches=past)
                # lanes: x - x is 0 for finite x, NaN otherwise -> 16 bits, collected by or
                non_finite = builder.fcmp_unordered("!=", builder.fsub(value, value), zeros)
                wrong = builder.or_(wrong, builder.bitcast(non_finite, wrong.type))
            return builder.zext(wrong, WORD)

        return types.uint64(one, other, more, out, types.intp), codegen

    return passing


_copy, _copy_past_caches = _passing("same", False), _passing("same", True)
_less, _less_past_caches = _passing("change", False), _passing("change", True)
_corrected, _corrected_past_caches = _passing("corrected", False), _passing("corrected", True)
_sum, _sum_past_caches = _passing("sum", False), _passing("sum", True)


def _dividing(past: bool) -> Any:  # noqa: ANN401
    """Return an intrinsic of (one, out, place, by, limit_) that writes 64 elements of `one`, divided, to `out`.

    It returns a uint64 that is 0 where no quotient is NaN or has a magnitude above limit_.

    Args:
        past: Store past the caches.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def dividing(typing: Any, one: Any, out: Any, place: Any, by: Any, limit_: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            one, out, place, by, limit_ = args
            block = Block(context, builder, signature.args, place)
            wrong = ir.Constant(ir.IntType(block.LANES), 0)
            divisor, limit = splat(builder, by, block.LANES), splat(builder, limit_, block.LANES)
            lower_limit = builder.fneg(limit)
            for lane in range(0, LANES, block.LANES):
                block.lane = lane
                # lanes: one / by -> out
                value = builder.fdiv(block.read(one, 0), divisor)
                block.write(value, out, 1, past_caches=past)
                # lanes: beyond the limit on either side, or NaN -> 16 bits, collected by or
                for non_finite in (
                    builder.fcmp_unordered(">", value, limit),
                    builder.fcmp_unordered("<", value, lower_limit),
                ):
                    wrong = builder.or_(wrong, builder.bitcast(non_finite, wrong.type))
            return builder.zext(wrong, WORD)

        return types.uint64(one, out, types.intp, one.dtype, one.dtype), codegen

    return dividing


_share, _share_past_caches = _dividing(False), _dividing(True)


def _scaling(past: bool, adds: bool) -> Any:  # noqa: ANN401
    """Return an intrinsic of (one, more, out, place, factor) that writes 64 elements of `one` times factor to `out`.

    It returns a uint64 that is 0 where no result is inf or NaN.

    Args:
        past: Store past the caches.
        adds: Add `more` to the product, otherwise 0.0.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def scaling(typing: Any, one: Any, more: Any, out: Any, place: Any, factor: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            one, more, out, place, factor = args
            block = Block(context, builder, signature.args, place)
            wrong = ir.Constant(ir.IntType(block.LANES), 0)
            by = splat(builder, factor, block.LANES)
            for lane in range(0, LANES, block.LANES):
                block.lane = lane
                # lanes: one * factor, plus `more` or 0.0 -> out
                value = builder.fmul(block.read(one, 0), by)
                zeros = same(value.type, 0.0)
                value = builder.fadd(value, block.read(more, 1) if adds else zeros)
                block.write(value, out, 2, past_caches=past)
                # lanes: x - x is 0 for finite x, NaN otherwise -> 16 bits, collected by or
                non_finite = builder.fcmp_unordered("!=", builder.fsub(value, value), zeros)
                wrong = builder.or_(wrong, builder.bitcast(non_finite, wrong.type))
            return builder.zext(wrong, WORD)

        return types.uint64(one, more, out, types.intp, one.dtype), codegen

    return scaling


_scale, _scale_past_caches = _scaling(False, False), _scaling(True, False)
_scale_plus, _scale_plus_past_caches = _scaling(False, True), _scaling(True, True)


@kernel
def _gather(addresses: Array, sizes: Array, out: Array, past_caches: bool) -> bool:
    """Copy tensors into `out`. Returns whether no element is inf or NaN."""
    wrong, none = uint64(0), out.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        part = out[at : at + sizes[i]]
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        begin, last = full_blocks(part, past_caches)
        for place in range(begin, last, 64):
            if past_caches:
                wrong |= _copy_past_caches(one, one, one, part, place)
            else:
                wrong |= _copy(one, one, one, part, place)
        # the elements before and behind the full blocks, one by one; below too
        for k in range(part.size - last + begin):
            place = k if k < begin else k + last - begin
            part[place] = one[place]
            wrong |= uint64(part[place] - part[place] != none)
        at += sizes[i]
    return bool(wrong == uint64(0))


@kernel
def _gather_shares(
    addresses: Array, sizes: Array, out: Array, divisor: float, limit_: float, past_caches: bool
) -> bool:  # fmt: skip
    """Copy tensors into `out`, divided. Returns whether no quotient is NaN or beyond the limit."""
    number = out.dtype.type
    by, limit = number(divisor), number(limit_)
    wrong = uint64(0)
    at = 0
    for i in range(sizes.size):
        part = out[at : at + sizes[i]]
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        begin, last = full_blocks(part, past_caches)
        for place in range(begin, last, 64):
            if past_caches:
                wrong |= _share_past_caches(one, part, place, by, limit)
            else:
                wrong |= _share(one, part, place, by, limit)
        for k in range(part.size - last + begin):
            place = k if k < begin else k + last - begin
            part[place] = one[place] / by
            wrong |= uint64(not (abs(part[place]) <= limit))
        at += sizes[i]
    return bool(wrong == uint64(0))


@kernel
def _gather_change(
    addresses: Array, sizes: Array, start: Array, plus: Array, out: Array, adds: bool, past_caches: bool
) -> bool:
    """Write tensors less `start`, plus `plus` where `adds`. Returns whether no element is inf or NaN."""
    wrong, none = uint64(0), out.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, before, more = out[at:end], start[at:end], plus[at:end]
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        begin, last = full_blocks(part, past_caches)
        for place in range(begin, last, 64):
            if adds and past_caches:
                wrong |= _corrected_past_caches(one, before, more, part, place)
            elif adds:
                wrong |= _corrected(one, before, more, part, place)
            elif past_caches:
                wrong |= _less_past_caches(one, before, more, part, place)
            else:
                wrong |= _less(one, before, more, part, place)
        for k in range(part.size - last + begin):
            place = k if k < begin else k + last - begin
            change = one[place] - before[place]
            part[place] = change + more[place] if adds else change
            wrong |= uint64(part[place] - part[place] != none)
        at = end
    return bool(wrong == uint64(0))


@kernel
def _gather_scaled(
    addresses: Array, sizes: Array, factors: Array, plus: Array, out: Array, past_caches: bool
) -> bool:  # fmt: skip
    """Write each tensor times its factor, plus `plus` if it is not empty. Returns whether no element is inf or NaN."""
    wrong, none = uint64(0), out.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, more = out[at:end], plus[at:end] if plus.size else plus
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        by = out.dtype.type(factors[i])
        begin, last = full_blocks(part, past_caches)
        for place in range(begin, last, 64):
            if plus.size and past_caches:
                wrong |= _scale_plus_past_caches(one, more, part, place, by)
            elif plus.size:
                wrong |= _scale_plus(one, more, part, place, by)
            elif past_caches:
                wrong |= _scale_past_caches(one, more, part, place, by)
            else:
                wrong |= _scale(one, more, part, place, by)
        for k in range(part.size - last + begin):
            place = k if k < begin else k + last - begin
            scaled = one[place] * by
            part[place] = scaled + (more[place] if plus.size else none)
            wrong |= uint64(part[place] - part[place] != none)
        at = end
    return bool(wrong == uint64(0))


@kernel
def _add_into(addresses: Array, sizes: Array, indices: Array, values: Array) -> None:
    """Add values to tensors at ascending indices of the vector that they make."""
    number, start, stop = 0, 0, sizes[0]
    tensor = carray(pointer_to(addresses[0]), (sizes[0],), values.dtype)
    for i in range(indices.size):
        while indices[i] >= stop:
            number += 1
            start, stop = stop, stop + sizes[number]
            tensor = carray(pointer_to(addresses[number]), (sizes[number],), values.dtype)
        tensor[uint64(indices[i] - start)] += values[i]


@kernel
def _scatter(addresses: Array, sizes: Array, vector: Array, as_sum: bool, past_caches: bool) -> None:
    """Copy `vector` into tensors; as_sum adds 0.0."""
    none = vector.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        part = vector[at : at + sizes[i]]
        out = carray(pointer_to(addresses[i]), part.shape, vector.dtype)
        begin, last = full_blocks(out, past_caches)
        for place in range(begin, last, 64):
            if as_sum and past_caches:
                _sum_past_caches(part, part, part, out, place)
            elif as_sum:
                _sum(part, part, part, out, place)
            elif past_caches:
                _copy_past_caches(part, part, part, out, place)
            else:
                _copy(part, part, part, out, place)
        for k in range(part.size - last + begin):
            place = k if k < begin else k + last - begin
            out[place] = part[place] + none if as_sum else part[place]
        at += sizes[i]
