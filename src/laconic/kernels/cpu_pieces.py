"""`plain_pieces` in machine code, one thread, one pass, whatever the number of pieces: bit for bit the same.

A vector that no cache holds is written past the caches: a plain store fetches what it overwrites.
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

from laconic.kernels import plain_pieces
from laconic.kernels.compiled import kernel
from laconic.kernels.cpu_words import LANES, WORD, Block, Codegen, intrinsic, same, splat, types, whole_blocks
from laconic.kernels.plain_sums import most_of_share

Array = NDArray[Any]

PAST_CACHES_BYTES = 1 << 24  # of a vector whose parts leave the caches before they are read again


def gather(pieces: Sequence[Tensor], out: Tensor, *, among: int = 1) -> bool:
    """See plain_pieces."""
    if not are_plain(pieces, out):
        return plain_pieces.gather(pieces, out, among=among)
    if among == 1:
        return bool(_gather(*places_of(pieces), out.numpy(), is_long(out)))
    most = most_of_share(out.dtype, among)
    return bool(_gather_shares(*places_of(pieces), out.numpy(), float(among), most, is_long(out)))


def gather_change(pieces: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """See plain_pieces."""
    others = [start] if plus is None else [start, plus]
    if not are_plain([*pieces, *others], out):
        return plain_pieces.gather_change(pieces, start, out, plus)
    arrays = start.numpy(), others[-1].numpy(), out.numpy()
    return bool(_gather_change(*places_of(pieces), *arrays, plus is not None, is_long(out)))


def gather_scaled(pieces: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None = None) -> bool:
    """See plain_pieces."""
    if not are_plain([*pieces, out if plus is None else plus], out):
        return plain_pieces.gather_scaled(pieces, factors, out, plus)
    more = np.zeros(0, out.numpy().dtype) if plus is None else plus.numpy()
    return bool(_gather_scaled(*places_of(pieces), np.array(factors), more, out.numpy(), is_long(out)))


def add_into(pieces: Sequence[Tensor], places: Tensor, values: Tensor) -> None:
    """See plain_pieces."""
    if not are_plain(pieces, values):
        plain_pieces.add_into(pieces, places, values)
        return
    _add_into(*places_of(pieces), places.contiguous().numpy(), values.numpy())


def scatter(vector: Tensor, pieces: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """See plain_pieces."""
    if not are_plain(pieces, vector):
        plain_pieces.scatter(vector, pieces, as_sum=as_sum)
        return
    _scatter(*places_of(pieces), vector.numpy(), as_sum, is_long(vector))


def are_plain(pieces: Sequence[Tensor], vector: Tensor) -> bool:
    """Whether everything is floats of one type that lie one behind the other."""
    dtype = vector.dtype
    return dtype in (torch.float32, torch.float64) and all(
        piece.dtype == dtype and piece.is_contiguous() for piece in (*pieces, vector)
    )


def places_of(pieces: Sequence[Tensor]) -> tuple[Array, Array]:
    addresses = np.array([piece.data_ptr() for piece in pieces], np.uint64)
    return addresses, np.array([piece.numel() for piece in pieces], np.int64)


def is_long(vector: Tensor) -> bool:
    """Whether it is written past the caches."""
    return vector.numel() * vector.element_size() >= PAST_CACHES_BYTES


@intrinsic  # type: ignore[untyped-decorator]
def pointer_to(typing: Any, address: Any) -> Codegen:  # noqa: ANN401
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.uint64), codegen


def _passing(kind: str, past: bool) -> Any:  # noqa: ANN401
    """A function of (one, other, more, out, place): sixty-four entries of `one` to `out`, as they are or changed.

    kind: "same", "change" (less `other`), "wish" (less `other`, plus `more`), "sum" (plus 0.0).
    Returns a word that is 0 where none is inf or NaN.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def passing(typing: Any, one: Any, other: Any, more: Any, out: Any, place: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            one, other, more, out, place = args
            block = Block(context, builder, signature.args, place)
            wrong = ir.Constant(ir.IntType(block.LANES), 0)
            for piece in range(0, LANES, block.LANES):
                block.piece = piece
                value = block.read(one, 0)
                zeros = same(value.type, 0.0)
                if kind in ("change", "wish"):
                    value = builder.fsub(value, block.read(other, 1))
                if kind == "wish":
                    value = builder.fadd(value, block.read(more, 2))
                elif kind == "sum":
                    value = builder.fadd(value, zeros)
                block.write(value, out, 3, past_caches=past)
                spoiled = builder.fcmp_unordered("!=", builder.fsub(value, value), zeros)
                wrong = builder.or_(wrong, builder.bitcast(spoiled, wrong.type))
            return builder.zext(wrong, WORD)

        return types.uint64(one, other, more, out, types.intp), codegen

    return passing


_copy, _copy_past_caches = _passing("same", False), _passing("same", True)
_less, _less_past_caches = _passing("change", False), _passing("change", True)
_wish, _wish_past_caches = _passing("wish", False), _passing("wish", True)
_sum, _sum_past_caches = _passing("sum", False), _passing("sum", True)


def _dividing(past: bool) -> Any:  # noqa: ANN401
    """A function of (one, out, place, by, most): sixty-four entries of `one`, divided, to `out`.

    Returns a word that is 0 where no quotient is beyond `most` or NaN.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def dividing(typing: Any, one: Any, out: Any, place: Any, by: Any, most: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            one, out, place, by, most = args
            block = Block(context, builder, signature.args, place)
            wrong = ir.Constant(ir.IntType(block.LANES), 0)
            divisor, limit = splat(builder, by, block.LANES), splat(builder, most, block.LANES)
            least = builder.fneg(limit)
            for piece in range(0, LANES, block.LANES):
                block.piece = piece
                value = builder.fdiv(block.read(one, 0), divisor)
                block.write(value, out, 1, past_caches=past)
                for spoiled in (builder.fcmp_unordered(">", value, limit), builder.fcmp_unordered("<", value, least)):
                    wrong = builder.or_(wrong, builder.bitcast(spoiled, wrong.type))
            return builder.zext(wrong, WORD)

        return types.uint64(one, out, types.intp, one.dtype, one.dtype), codegen

    return dividing


_share, _share_past_caches = _dividing(False), _dividing(True)


def _scaling(past: bool, adds: bool) -> Any:  # noqa: ANN401
    """A function of (one, more, out, place, factor): sixty-four entries of `one` times `factor` to `out`.

    adds: and plus `more`; else plus 0.0. Returns a word that is 0 where none is inf or NaN.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def scaling(typing: Any, one: Any, more: Any, out: Any, place: Any, factor: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            one, more, out, place, factor = args
            block = Block(context, builder, signature.args, place)
            wrong = ir.Constant(ir.IntType(block.LANES), 0)
            by = splat(builder, factor, block.LANES)
            for piece in range(0, LANES, block.LANES):
                block.piece = piece
                value = builder.fmul(block.read(one, 0), by)
                zeros = same(value.type, 0.0)
                value = builder.fadd(value, block.read(more, 1) if adds else zeros)
                block.write(value, out, 2, past_caches=past)
                spoiled = builder.fcmp_unordered("!=", builder.fsub(value, value), zeros)
                wrong = builder.or_(wrong, builder.bitcast(spoiled, wrong.type))
            return builder.zext(wrong, WORD)

        return types.uint64(one, more, out, types.intp, one.dtype), codegen

    return scaling


_scale, _scale_past_caches = _scaling(False, False), _scaling(True, False)
_scale_plus, _scale_plus_past_caches = _scaling(False, True), _scaling(True, True)


@kernel
def _gather(addresses: Array, sizes: Array, out: Array, past_caches: bool) -> bool:
    wrong, none = uint64(0), out.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        part = out[at : at + sizes[i]]
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        first, last = whole_blocks(part, past_caches)
        for place in range(first, last, 64):
            if past_caches:
                wrong |= _copy_past_caches(one, one, one, part, place)
            else:
                wrong |= _copy(one, one, one, part, place)
        for k in range(part.size - last + first):
            place = k if k < first else k + last - first
            part[place] = one[place]
            wrong |= uint64(part[place] - part[place] != none)
        at += sizes[i]
    return bool(wrong == uint64(0))


@kernel
def _gather_shares(
    addresses: Array, sizes: Array, out: Array, among: float, most: float, past_caches: bool
) -> bool:  # fmt: skip
    number = out.dtype.type
    by, limit = number(among), number(most)
    wrong = uint64(0)
    at = 0
    for i in range(sizes.size):
        part = out[at : at + sizes[i]]
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        first, last = whole_blocks(part, past_caches)
        for place in range(first, last, 64):
            if past_caches:
                wrong |= _share_past_caches(one, part, place, by, limit)
            else:
                wrong |= _share(one, part, place, by, limit)
        for k in range(part.size - last + first):
            place = k if k < first else k + last - first
            part[place] = one[place] / by
            wrong |= uint64(not (abs(part[place]) <= limit))
        at += sizes[i]
    return bool(wrong == uint64(0))


@kernel
def _gather_change(
    addresses: Array, sizes: Array, start: Array, plus: Array, out: Array, adds: bool, past_caches: bool
) -> bool:
    wrong, none = uint64(0), out.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, before, more = out[at:end], start[at:end], plus[at:end]
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        first, last = whole_blocks(part, past_caches)
        for place in range(first, last, 64):
            if adds and past_caches:
                wrong |= _wish_past_caches(one, before, more, part, place)
            elif adds:
                wrong |= _wish(one, before, more, part, place)
            elif past_caches:
                wrong |= _less_past_caches(one, before, more, part, place)
            else:
                wrong |= _less(one, before, more, part, place)
        for k in range(part.size - last + first):
            place = k if k < first else k + last - first
            change = one[place] - before[place]
            part[place] = change + more[place] if adds else change
            wrong |= uint64(part[place] - part[place] != none)
        at = end
    return bool(wrong == uint64(0))


@kernel
def _gather_scaled(
    addresses: Array, sizes: Array, factors: Array, plus: Array, out: Array, past_caches: bool
) -> bool:  # fmt: skip
    wrong, none = uint64(0), out.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, more = out[at:end], plus[at:end] if plus.size else plus
        one = carray(pointer_to(addresses[i]), part.shape, out.dtype)
        by = out.dtype.type(factors[i])
        first, last = whole_blocks(part, past_caches)
        for place in range(first, last, 64):
            if plus.size and past_caches:
                wrong |= _scale_plus_past_caches(one, more, part, place, by)
            elif plus.size:
                wrong |= _scale_plus(one, more, part, place, by)
            elif past_caches:
                wrong |= _scale_past_caches(one, more, part, place, by)
            else:
                wrong |= _scale(one, more, part, place, by)
        for k in range(part.size - last + first):
            place = k if k < first else k + last - first
            scaled = one[place] * by
            part[place] = scaled + (more[place] if plus.size else none)
            wrong |= uint64(part[place] - part[place] != none)
        at = end
    return bool(wrong == uint64(0))


@kernel
def _add_into(addresses: Array, sizes: Array, places: Array, values: Array) -> None:
    number, start, stop = 0, 0, sizes[0]
    piece = carray(pointer_to(addresses[0]), (sizes[0],), values.dtype)
    for i in range(places.size):
        while places[i] >= stop:
            number += 1
            start, stop = stop, stop + sizes[number]
            piece = carray(pointer_to(addresses[number]), (sizes[number],), values.dtype)
        piece[uint64(places[i] - start)] += values[i]


@kernel
def _scatter(addresses: Array, sizes: Array, vector: Array, as_sum: bool, past_caches: bool) -> None:
    none = vector.dtype.type(0)
    at = 0
    for i in range(sizes.size):
        part = vector[at : at + sizes[i]]
        out = carray(pointer_to(addresses[i]), part.shape, vector.dtype)
        first, last = whole_blocks(out, past_caches)
        for place in range(first, last, 64):
            if as_sum and past_caches:
                _sum_past_caches(part, part, part, out, place)
            elif as_sum:
                _sum(part, part, part, out, place)
            elif past_caches:
                _copy_past_caches(part, part, part, out, place)
            else:
                _copy(part, part, part, out, place)
        for k in range(part.size - last + first):
            place = k if k < first else k + last - first
            out[place] = part[place] + none if as_sum else part[place]
        at += sizes[i]
