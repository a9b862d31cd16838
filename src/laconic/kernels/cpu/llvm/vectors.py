"""Vectors of 64 elements, and words of 64 bits about them: the building blocks of all other LLVM kernels.

For the kernels of `kernels/cpu` that work on signs and masks. A word holds one bit for each of 64 neighboring elements,
the lowest bit for the first one. Reference: `reference/hashing.py` for the hash, the mask and packed bits,
`reference/signs.py` for signs. All operations here are exact or rounded one by one, so the bits are the reference's.

Some loops are written as LLVM vectors, because numba's own take more than 1.3 times as long; others are numba's. LLVM
splits a vector into registers of the processor's width, so the same file serves every processor. `docs/kernels.md` says
how to read it, and what `context` and `builder` are. `at` is the index of the first element; the caller makes sure that
64 elements are there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, int64, uint64
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numpy.typing import NDArray

from laconic.kernels.cpu.compile import inlined
from laconic.kernels.reference.hashing import FACTOR_1, FACTOR_2

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
    """Return a vector of n lanes, each equal to `scalar`."""
    # scalar into lane 0, then lane 0 into every lane: one broadcast instruction
    lanes = ir.VectorType(scalar.type, n)
    one = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, ir.Constant(U32, 0))
    return builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), ir.Constant(ir.VectorType(U32, n), [0] * n))


def same(lanes: Any, value: float) -> Any:  # noqa: ANN401
    """Return a constant vector of type `lanes`, each lane equal to `value`."""
    return ir.Constant(lanes, [value] * lanes.count)


def vector_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any, n: int = LANES) -> tuple[Any, int]:  # noqa: ANN401
    """Return a pointer to n consecutive elements of an array as one vector.

    Args:
        array_type: numba's type of the array, contiguous.
        array: The array, as numba passes it.
        at: Index of the first element.
        n: Number of elements.

    Returns:
        The pointer, and the bytes of one element: the alignment that an array promises.
    """
    size = array_type.dtype.bitwidth // 8
    # the array's data + at * size bytes, as a pointer to a vector
    element = context.get_data_type(array_type.dtype)
    data = context.make_array(array_type)(context, builder, array).data
    address = cgutils.pointer_add(builder, data, builder.mul(at, ir.Constant(at.type, size)))
    return builder.bitcast(address, ir.VectorType(element, n).as_pointer()), size


def part(builder: Any, lanes: Any, start: int, n: int) -> Any:  # noqa: ANN401
    """Return n lanes of a vector from lane `start` on."""
    # lanes start .. start + n - 1 of one vector
    order = ir.Constant(ir.VectorType(U32, n), list(range(start, start + n)))
    return builder.shuffle_vector(lanes, ir.Constant(lanes.type, ir.Undefined), order)


def concatenated(builder: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """Return two vectors of one type as one of twice the length."""
    # the lanes of `one`, then the lanes of `other`
    n = 2 * one.type.count
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(U32, n), list(range(n))))


def has_feature(context: Any, name: str) -> bool:  # noqa: ANN401
    """Return whether the processor that numba compiles for has a feature.

    The features are also part of the key under which numba keeps machine code on disk. So code with an instruction is
    never loaded on a processor without it, and a process with NUMBA_CPU_FEATURES set gets code of its own.

    Args:
        name: LLVM's name of the feature, such as "avx512bw".
    """
    _, _, features = context.codegen().magic_tuple()
    return f"+{name}" in features.split(",")


def register_lanes(context: Any) -> int:  # noqa: ANN401
    """Return how many float32 fill one register: then comparing, selecting and taking bits are one instruction each."""
    return 16 if has_feature(context, "avx512f") else 8


class Block:
    """Reads and writes a few elements of arrays at a time, from index `place` + `lane` on."""

    def __init__(self, context: Any, builder: Any, array_types: Any, place: Any, n: int = 16) -> None:  # noqa: ANN401
        self.LANES = n
        self._context = context
        self.builder = builder
        self._types = array_types
        self._place = place
        self.lane = 0

    def _at(self, array: Any, number: int) -> tuple[Any, int]:  # noqa: ANN401
        # address of element `place` + `lane` of array `number`
        place = self.builder.add(self._place, ir.Constant(self._place.type, self.lane))
        return vector_at(self._context, self.builder, self._types[number], array, place, self.LANES)

    def read(self, array: Any, number: int, ahead: int = 1 << 10) -> Any:  # noqa: ANN401
        """Load LANES elements as a vector, and ask for the line of the cache so many bytes ahead, if there is one.

        A processor asks by itself within a page of 4 KiB only. `number` is the array's among the intrinsic's arguments.
        """
        # memory -> lanes, aligned as one element is; once a line of 64 bytes, a later line -> cache
        pointer, size = self._at(array, number)
        if self.lane * size % 64 == 0:
            byte = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, U32, U32, U32])
            prefetch = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0i8")
            later = self.builder.gep(self.builder.bitcast(pointer, byte), [ir.Constant(U32, ahead)])
            self.builder.call(prefetch, [later, *(ir.Constant(U32, flag) for flag in (0, 3, 1))])  # to be read
        return self.builder.load(pointer, align=size)

    def write(self, value: Any, array: Any, number: int, *, past_caches: bool = False) -> None:  # noqa: ANN401
        """Store a vector of LANES elements to an array.

        Args:
            value: Lanes of the array's type.
            array: The array, as numba passes it.
            number: The array's number among the intrinsic's arguments.
            past_caches: Store past the caches, to a multiple of 64 bytes. An ordinary store reads its line first.
        """
        # lanes -> memory; past the caches the full line of 64 bytes must be aligned
        pointer, size = self._at(array, number)
        store = self.builder.store(value, pointer, align=min(64, self.LANES * size) if past_caches else size)
        if past_caches:
            store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(U32, 1)]))


class Word:
    """Collects lanes of 1 bit of one register after the other in a word, from its lowest bit on."""

    def __init__(self, builder: Any) -> None:  # noqa: ANN401
        self._builder = builder
        self._parts = [ir.Constant(WORD, 0)] * 2  # of every second register: of neighbors LLVM would make bytes first

    def add(self, bits: Any, lane: int) -> None:  # noqa: ANN401
        """Put lanes of 1 bit into the word, from bit `lane` on."""
        # lanes of 1 bit -> scalar, shifted to its place
        builder, number = self._builder, lane // bits.type.count % 2
        wide = builder.zext(builder.bitcast(bits, ir.IntType(bits.type.count)), WORD)
        self._parts[number] = builder.or_(self._parts[number], builder.shl(wide, ir.Constant(WORD, lane)))

    def value(self) -> Any:  # noqa: ANN401
        """Return the word."""
        return self._builder.or_(*self._parts)


def hashes(builder: Any, coordinates: Any, low: Any, high: Any) -> Any:  # noqa: ANN401
    """Return `reference.hashing.hash32` of a vector of coordinates, lane by lane.

    Args:
        coordinates: Lanes of 32 bits.
        low: The low half of the mixed key in every lane.
        high: The high half of the mixed key in every lane.

    Returns:
        Lanes of 32 bits.
    """
    lanes = coordinates.type

    def folded(x: Any, bits: int) -> Any:  # noqa: ANN401
        """Return x ^ (x >> bits)."""
        return builder.xor(x, builder.lshr(x, same(lanes, bits)))

    # lanes: the two rounds of hash32 over coordinates, modulo 2**32
    x = folded(builder.xor(coordinates, low), 16)
    x = folded(builder.mul(x, same(lanes, FACTOR_1)), 15)
    x = builder.add(x, high)
    return folded(builder.mul(x, same(lanes, FACTOR_2)), 16)


def hash_within(builder: Any, coordinates: Any, low: Any, high: Any, limit: Any) -> Any:  # noqa: ANN401
    """Return lanes of 1 bit: hash32 of the coordinates <= limit. Arguments as for `hashes`."""
    return builder.icmp_unsigned("<=", hashes(builder, coordinates, low, high), limit)


def _signs(builder: Any, lanes: Any, negative: Any, mask: Any, size: Any) -> Any:  # noqa: ANN401
    """Return 64 lanes of -size or +size, and 0 where the mask is not set.

    Args:
        lanes: Type of the result: 64 floats or int8.
        negative: Word of 64 bits; a set bit means -size.
        mask: Word of 64 bits.
        size: Scalar of the lanes' type.
    """
    # lanes: bit of `negative` -> -size or +size, then bit of `mask` -> that or 0
    is_float = not isinstance(lanes.element, ir.IntType)
    minus = builder.fneg(size) if is_float else builder.neg(size)
    bits = ir.VectorType(ir.IntType(1), LANES)
    signs = builder.select(builder.bitcast(negative, bits), splat(builder, minus), splat(builder, size))
    return builder.select(builder.bitcast(mask, bits), signs, same(lanes, 0.0 if is_float else 0))


@intrinsic  # type: ignore[untyped-decorator]
def selected(typing: Any, coordinate: Any, low: Any, high: Any, limit: Any) -> Codegen:  # noqa: ANN401
    """Return the mask of 64 coordinates: bit k is hash32(coordinate + k) <= limit.

    Args:
        coordinate: uint32, number of the first coordinate.
        low: uint32, the low half of the mixed key.
        high: uint32, the high half of the mixed key.
        limit: uint32, the threshold less 1.

    Returns:
        uint64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        # lanes: coordinate + 0 .. 63 -> hash32 -> hash <= limit -> a word of 64 bits
        offset, low, high, limit = (splat(builder, scalar) for scalar in args)
        coordinates = builder.add(offset, ir.Constant(offset.type, list(range(LANES))))
        return builder.bitcast(hash_within(builder, coordinates, low, high, limit), WORD)

    return types.uint64(types.uint32, types.uint32, types.uint32, types.uint32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_signs_at(typing: Any, total: Any, at: Any, negative: Any, mask: Any, size: Any) -> Codegen:  # noqa: ANN401
    """Add -size, +size or 0 to total[at + k], by bit k of two words, for 64 elements.

    Args:
        total: Contiguous float32, float64 or int8, changed in place.
        at: Index of the first element.
        negative: uint64; a set bit means -size.
        mask: uint64; a bit that is not set means 0.
        size: Scalar of the total's type.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        array, at, negative, mask, size = args
        # lanes: total[at .. at + 63] + the signs of two words -> total
        pointer, align = vector_at(context, builder, signature.args[0], array, at)
        before = builder.load(pointer, align=align)
        signs = _signs(builder, before.type, negative, mask, size)
        after = builder.fadd(before, signs) if isinstance(total.dtype, types.Float) else builder.add(before, signs)
        builder.store(after, pointer, align=align)
        return context.get_dummy_value()

    return types.none(total, types.intp, types.uint64, types.uint64, total.dtype), codegen


def _bits_by(instruction: str, loop: Callable[[Any, Any], Any]) -> Any:  # noqa: ANN401
    """Return a function of (word, mask) that is one of BMI2's two instructions.

    Args:
        instruction: "pext" or "pdep".
        loop: What to compile instead on a processor without BMI2.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def gather(typing: Any, word: Any, mask: Any) -> Codegen:  # noqa: ANN401
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            # word, mask -> pext or pdep, one instruction; without BMI2 a call of the compiled loop
            if not has_feature(context, "bmi2"):
                return context.compile_internal(builder, loop, signature, args)
            kind = ir.FunctionType(WORD, [WORD, WORD])
            name = f"llvm.x86.bmi.{instruction}.64"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

        return types.uint64(types.uint64, types.uint64), codegen

    return gather


def compress_by_loop(word: Any, mask: Any) -> Any:  # noqa: ANN401 - numba's own scalars
    """Return the bits of `word` where `mask` is set, moved together at the low end: uint64."""
    gathered, place = uint64(0), uint64(1)
    while mask:
        lowest = mask & (~mask + uint64(1))
        if word & lowest:
            gathered |= place
        place <<= uint64(1)
        mask ^= lowest
    return gathered


def expand_by_loop(word: Any, mask: Any) -> Any:  # noqa: ANN401
    """Return the low bits of `word`, in order, moved to where `mask` is set: uint64. The inverse."""
    scattered, place = uint64(0), uint64(1)
    while mask:
        lowest = mask & (~mask + uint64(1))
        if word & place:
            scattered |= lowest
        place <<= uint64(1)
        mask ^= lowest
    return scattered


compress = _bits_by("pext", compress_by_loop)
expand = _bits_by("pdep", expand_by_loop)


@inlined
def negatives(values: NDArray[Any], at: int) -> Any:  # noqa: ANN401 - numba's own scalars
    """Return a uint64 whose bit k is values[at + k] < 0. values: contiguous float32, float64 or int8."""
    word, none = uint64(0), values.dtype.type(0)
    for k in range(LANES):
        word |= uint64(values[at + k] < none) << uint64(k)
    return word


@inlined
def put_signs_at(out: NDArray[Any], at: int, negative: Any, mask: Any, size: Any) -> None:  # noqa: ANN401
    """Write -size, +size or 0 to out[at + k], by bit k of two words. Arguments as for `add_signs_at`."""
    none = out.dtype.type(0)
    for k in range(LANES):
        sign = -size if (negative >> uint64(k)) & uint64(1) else size
        out[at + k] = sign if (mask >> uint64(k)) & uint64(1) else none


@inlined
def population(word: Any) -> Any:  # noqa: ANN401
    """Return the number of set bits of a uint64, as int64: LLVM makes one instruction of it (popcnt)."""
    word -= (word >> uint64(1)) & uint64(0x5555555555555555)
    word = (word & uint64(0x3333333333333333)) + ((word >> uint64(2)) & uint64(0x3333333333333333))
    word = (word + (word >> uint64(4))) & uint64(0x0F0F0F0F0F0F0F0F)
    return int64((word * uint64(0x0101010101010101)) >> uint64(56))


@inlined
def lowest(word: Any) -> Any:  # noqa: ANN401
    """Return the number of the lowest set bit of a uint64, as int64; 64 where none is set."""
    return population((word & (~word + uint64(1))) - uint64(1))


@inlined
def low_bits(n: int) -> Any:  # noqa: ANN401
    """Return a uint64 whose n lowest bits are set, 0 <= n < 64."""
    return (uint64(1) << uint64(n)) - uint64(1)


@inlined
def append(words: Words, position: int, bits: Any, n: int) -> int:  # noqa: ANN401
    """Write bits behind the end of a stream.

    The word behind the written bits is overwritten too. So only the stream's first word has to be 0 at the start, and
    the array needs one word more than the stream.

    Args:
        words: The stream, changed in place.
        position: Length of the stream in bits.
        bits: uint64; bits from n on must be 0.
        n: Number of bits, at most 64.

    Returns:
        The new length in bits.
    """
    word, shift = position >> 6, uint64(position & 63)
    words[word] |= bits << shift
    words[word + 1] = (bits >> uint64(1)) >> (uint64(63) - shift)
    return position + n


@inlined
def peek(words: Words, position: int) -> Any:  # noqa: ANN401
    """Return 64 bits of a stream from bit `position` on. Reads one word behind them too.

    There is no branch, here and in `append`: with one, numba would count references to the array.
    """
    word, shift = position >> 6, uint64(position & 63)
    return (words[word] >> shift) | ((words[word + 1] << uint64(1)) << (uint64(63) - shift))


@inlined
def full_blocks(part: NDArray[Any], past_caches: bool) -> tuple[int, int]:
    """Return the range of an array that full blocks of 64 elements cover.

    Args:
        part: Contiguous array.
        past_caches: Begin at an address that is a multiple of 64 bytes, as stores past the caches need.

    Returns:
        Index of the first element of the first block, and index behind the last block.
    """
    offset = 0
    if past_caches:
        offset = min(part.size, (64 - part.ctypes.data % 64) % 64 // part.itemsize)
    return offset, offset + (part.size - offset) // 64 * 64
