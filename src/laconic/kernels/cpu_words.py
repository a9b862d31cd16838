"""Sixty-four entries at once: the few operations on whole words of bits that numba's own loops do not reach.

They are written as LLVM vectors, which every processor gets in the width of its own registers. `at` is the place of
the first entry; the caller sees to it that 64 entries are there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, uint64
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numpy.typing import NDArray

from laconic.kernels.compiled import inlined

intrinsic: Any = extending.intrinsic  # numba's own types say that a caller gives its first argument too
types: Any = numba_types
cgutils: Any = numba_cgutils

Words = NDArray[np.uint64]
Codegen = tuple[Any, Callable[..., Any]]

LANES = 64
WORD = ir.IntType(64)
U32 = ir.IntType(32)
ALL, NONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0)


def splat(builder: Any, scalar: Any, n: int = LANES) -> Any:  # noqa: ANN401 - llvmlite has no types
    """A vector of n times `scalar`."""
    lanes = ir.VectorType(scalar.type, n)
    one = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, ir.Constant(U32, 0))
    return builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), ir.Constant(ir.VectorType(U32, n), [0] * n))


def same(lanes: Any, value: float) -> Any:  # noqa: ANN401
    """A constant vector."""
    return ir.Constant(lanes, [value] * lanes.count)


def vector_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any, n: int = LANES) -> tuple[Any, int]:  # noqa: ANN401
    """A pointer to n entries of a contiguous array from place `at`, as one vector, and an entry's bytes."""
    size = array_type.dtype.bitwidth // 8
    element = context.get_data_type(array_type.dtype)
    data = context.make_array(array_type)(context, builder, array).data
    entry = cgutils.pointer_add(builder, data, builder.mul(at, ir.Constant(at.type, size)))
    return builder.bitcast(entry, ir.VectorType(element, n).as_pointer()), size


def part(builder: Any, lanes: Any, start: int, n: int) -> Any:  # noqa: ANN401
    """n lanes of a vector from lane `start` on."""
    order = ir.Constant(ir.VectorType(U32, n), list(range(start, start + n)))
    return builder.shuffle_vector(lanes, ir.Constant(lanes.type, ir.Undefined), order)


def concatenated(builder: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """Two vectors of one type as one."""
    n = 2 * one.type.count
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(U32, n), list(range(n))))


def has_feature(context: Any, name: str) -> bool:  # noqa: ANN401
    """Whether the processors that numba compiles for have a feature, by LLVM's name of it.

    The features are also part of the key under which numba keeps machine code on disk. So code with an instruction is
    never loaded where the processor has it not, and a run with NUMBA_CPU_FEATURES set gets code of its own.
    """
    _, _, features = context.codegen().magic_tuple()
    return f"+{name}" in features.split(",")


class Block:
    """Reads and writes pieces of arrays, `place` and `piece` entries from their beginnings."""

    LANES = 16

    def __init__(self, context: Any, builder: Any, array_types: Any, place: Any) -> None:  # noqa: ANN401
        self._context = context
        self.builder = builder
        self._types = array_types
        self._place = place
        self.piece = 0

    def _at(self, array: Any, number: int) -> tuple[Any, int]:  # noqa: ANN401
        place = self.builder.add(self._place, ir.Constant(self._place.type, self.piece))
        return vector_at(self._context, self.builder, self._types[number], array, place, self.LANES)

    def read(self, array: Any, number: int) -> Any:  # noqa: ANN401
        pointer, size = self._at(array, number)
        return self.builder.load(pointer, align=size)

    def write(self, value: Any, array: Any, number: int, *, past_caches: bool = False) -> None:  # noqa: ANN401
        """past_caches: the array must begin at a multiple of 64 bytes. A plain store fetches what it overwrites."""
        pointer, size = self._at(array, number)
        store = self.builder.store(value, pointer, align=min(64, self.LANES * size) if past_caches else size)
        if past_caches:
            store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(U32, 1)]))


def hashes(builder: Any, coordinates: Any, low: Any, high: Any) -> Any:  # noqa: ANN401
    """plain.hash32 of a vector of coordinates; low, high: the key's halves. All are vectors of 32 bits."""
    lanes = coordinates.type

    def folded(x: Any, bits: int) -> Any:  # noqa: ANN401
        return builder.xor(x, builder.lshr(x, same(lanes, bits)))

    x = folded(builder.xor(coordinates, low), 16)
    x = folded(builder.mul(x, same(lanes, 0x7FEB352D)), 15)
    x = builder.add(x, high)
    return folded(builder.mul(x, same(lanes, 0x846CA68B)), 16)


def hash_within(builder: Any, coordinates: Any, low: Any, high: Any, limit: Any) -> Any:  # noqa: ANN401
    """Which of a vector of coordinates have plain.hash32 <= limit: a vector of bits. All are vectors of 32 bits."""
    return builder.icmp_unsigned("<=", hashes(builder, coordinates, low, high), limit)


def _signs(builder: Any, lanes: Any, negative: Any, mask: Any, size: Any) -> Any:  # noqa: ANN401
    """64 lanes of -size, +size or, where the mask is not set, 0."""
    is_float = not isinstance(lanes.element, ir.IntType)
    minus = builder.fneg(size) if is_float else builder.neg(size)
    bits = ir.VectorType(ir.IntType(1), LANES)
    signs = builder.select(builder.bitcast(negative, bits), splat(builder, minus), splat(builder, size))
    return builder.select(builder.bitcast(mask, bits), signs, same(lanes, 0.0 if is_float else 0))


@intrinsic  # type: ignore[untyped-decorator]
def negatives(typing: Any, values: Any, at: Any) -> Codegen:  # noqa: ANN401
    """uint64: bit k is values[at + k] < 0. values: contiguous float32, float64 or int8."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        pointer, align = vector_at(context, builder, signature.args[0], *args)
        lanes = builder.load(pointer, align=align)
        if isinstance(values.dtype, types.Float):
            below = builder.fcmp_ordered("<", lanes, same(lanes.type, 0.0))
        else:
            below = builder.icmp_signed("<", lanes, same(lanes.type, 0))
        return builder.bitcast(below, WORD)

    return types.uint64(values, types.intp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def kept(typing: Any, coordinate: Any, low: Any, high: Any, limit: Any) -> Codegen:  # noqa: ANN401
    """uint64: bit k is plain.hash32 of `coordinate + k` <= limit. All uint32; low, high: the key's halves."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        first, low, high, limit = (splat(builder, scalar) for scalar in args)
        coordinates = builder.add(first, ir.Constant(first.type, list(range(LANES))))
        return builder.bitcast(hash_within(builder, coordinates, low, high, limit), WORD)

    return types.uint64(types.uint32, types.uint32, types.uint32, types.uint32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_signs_at(typing: Any, total: Any, at: Any, negative: Any, mask: Any, size: Any) -> Codegen:  # noqa: ANN401
    """total[at + k] += -size, +size or 0 by the bits k of `negative` and `mask`; size has total's type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        array, at, negative, mask, size = args
        pointer, align = vector_at(context, builder, signature.args[0], array, at)
        before = builder.load(pointer, align=align)
        signs = _signs(builder, before.type, negative, mask, size)
        after = builder.fadd(before, signs) if isinstance(total.dtype, types.Float) else builder.add(before, signs)
        builder.store(after, pointer, align=align)
        return context.get_dummy_value()

    return types.none(total, types.intp, types.uint64, types.uint64, total.dtype), codegen


@intrinsic  # type: ignore[untyped-decorator]
def put_signs_at(typing: Any, out: Any, at: Any, negative: Any, mask: Any, size: Any) -> Codegen:  # noqa: ANN401
    """out[at + k] = -size, +size or 0 by the bits k of `negative` and `mask`; size has out's type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        array, at, negative, mask, size = args
        pointer, align = vector_at(context, builder, signature.args[0], array, at)
        lanes = ir.VectorType(context.get_data_type(out.dtype), LANES)
        builder.store(_signs(builder, lanes, negative, mask, size), pointer, align=align)
        return context.get_dummy_value()

    return types.none(out, types.intp, types.uint64, types.uint64, out.dtype), codegen


@intrinsic  # type: ignore[untyped-decorator]
def population(typing: Any, word: Any) -> Codegen:  # noqa: ANN401
    """How many bits of a uint64 are set: int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def lowest(typing: Any, word: Any) -> Codegen:  # noqa: ANN401
    """The number of a uint64's lowest set bit: int64; 64 where none is."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


def _bits_by(instruction: str, loop: Callable[[Any, Any], Any]) -> Any:  # noqa: ANN401
    """One of BMI2's bit gatherers as a function of (word, mask), or `loop` on a processor without them."""

    @intrinsic  # type: ignore[untyped-decorator]
    def gather(typing: Any, word: Any, mask: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            if not has_feature(context, "bmi2"):
                return context.compile_internal(builder, loop, signature, args)
            kind = ir.FunctionType(WORD, [WORD, WORD])
            name = f"llvm.x86.bmi.{instruction}.64"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

        return types.uint64(types.uint64, types.uint64), codegen

    return gather


def compress_by_loop(word: Any, mask: Any) -> Any:  # noqa: ANN401 - numba's own scalars
    """The bits of `word` where `mask` is set, moved together at the low end: uint64."""
    gathered, place = uint64(0), uint64(1)
    while mask:
        lowest = mask & (~mask + uint64(1))
        if word & lowest:
            gathered |= place
        place <<= uint64(1)
        mask ^= lowest
    return gathered


def expand_by_loop(word: Any, mask: Any) -> Any:  # noqa: ANN401
    """The inverse: the low bits of `word`, in order, to where `mask` is set: uint64."""
    spread, place = uint64(0), uint64(1)
    while mask:
        lowest = mask & (~mask + uint64(1))
        if word & place:
            spread |= lowest
        place <<= uint64(1)
        mask ^= lowest
    return spread


compress = _bits_by("pext", compress_by_loop)
expand = _bits_by("pdep", expand_by_loop)


@inlined
def head(n: int) -> Any:  # noqa: ANN401
    """A word whose n lowest bits are set, 0 <= n < 64."""
    return (uint64(1) << uint64(n)) - uint64(1)


@inlined
def append(words: Words, position: int, bits: Any, n: int) -> int:  # noqa: ANN401
    """Put n <= 64 bits behind the first `position` of a stream; returns its new length.

    Overwrites the next word too, so that a stream needs no more than its first word set to 0, and one word to spare.
    """
    word, shift = position >> 6, uint64(position & 63)
    words[word] |= bits << shift
    words[word + 1] = (bits >> uint64(1)) >> (uint64(63) - shift)
    return position + n


@inlined
def peek(words: Words, position: int) -> Any:  # noqa: ANN401
    """The 64 bits of a stream behind the first `position`; one word to spare is read.

    Without a branch, here and in `append`: behind one, numba would count references to the array.
    """
    word, shift = position >> 6, uint64(position & 63)
    return (words[word] >> shift) | ((words[word + 1] << uint64(1)) << (uint64(63) - shift))


@inlined
def whole_blocks(part: NDArray[Any], past_caches: bool) -> tuple[int, int]:
    """Between which places of `part` there are whole sixty-fours, from a multiple of 64 bytes on where it matters."""
    first = 0
    if past_caches:
        first = min(part.size, (64 - part.ctypes.data % 64) % 64 // part.itemsize)
    return first, first + (part.size - first) // 64 * 64
