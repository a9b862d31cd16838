"""Error feedback on runs of 64 elements: what is corrected, its signs and the sum of its magnitudes; scaled signs.

For the passes of `cpu/residuals.py`. Reference: `reference/residuals.py`. Elements and signs are the same bits: no
operation is fused or reordered. Magnitudes are added in float64, in 16 chains: that sum agrees to the tolerance that
the reference states.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.reductions import reduced
from laconic.kernels.cpu.llvm.vectors import (
    LANES,
    U32,
    WORD,
    Block,
    Codegen,
    Word,
    cgutils,
    has_feature,
    intrinsic,
    part,
    register_lanes,
    same,
    splat,
    types,
    vector_at,
)

BEYOND = 2.0**128
"""Sums of magnitudes below are right; from here on one of them may have been inf or NaN."""
_CHAINS = 16  # of the sum of magnitudes, whatever the registers' width
_WORDS, _VECTOR, _RESIDUAL, _MOMENTUM, _NEW_MOMENTUM = range(5)  # of the intrinsic's arguments


class Magnitudes:
    """Adds up magnitudes in float64, in 16 chains: element i goes to chain i modulo 16.

    The bits of a float32 in the upper part of a float64 are the same number times 2**-896, also for those below the
    normal range: so shifts do what a conversion would, in fewer instructions. Infinities and NaN become numbers from
    2**128 on (`BEYOND`), after which callers must add up again.
    """

    def __init__(self, builder: Any, real: Any, width: int) -> None:  # noqa: ANN401
        self._builder, self._width, self._is_single = builder, width, isinstance(real, ir.FloatType)
        # pairs of stack variables, which LLVM turns into registers: chains of the even lanes, and of the odd ones
        self._doubles = ir.VectorType(ir.DoubleType(), width // 2)
        self._chains = [(self._new_chain(), self._new_chain()) for _ in range(_CHAINS // width)]

    def _new_chain(self) -> Any:  # noqa: ANN401
        chain = cgutils.alloca_once(self._builder, self._doubles)
        self._builder.store(same(self._doubles, 0.0), chain)
        return chain

    def add(self, lanes: Any, number: int) -> None:  # noqa: ANN401
        """Add a register of elements, the one of this number in its group."""
        chains = self._chains[number % len(self._chains)]
        for chain, magnitudes in zip(chains, self._widened(lanes), strict=True):
            self._builder.store(self._builder.fadd(self._builder.load(chain), magnitudes), chain)

    def _widened(self, lanes: Any) -> tuple[Any, Any]:  # noqa: ANN401
        builder, half = self._builder, self._width // 2
        integers = ir.VectorType(WORD, half)
        if not self._is_single:
            # lanes: bits without the sign; the first half, then the second
            parts = [builder.bitcast(part(builder, lanes, start, half), integers) for start in (0, half)]
            one, other = (builder.and_(bits, same(integers, (1 << 63) - 1)) for bits in parts)
        else:
            # pairs of lanes -> their even ones, and their odd ones, each without its sign at the top of a float64
            bits = builder.bitcast(lanes, integers)
            one = builder.shl(builder.and_(bits, same(integers, (1 << 31) - 1)), same(integers, 29))
            other = builder.and_(builder.lshr(bits, same(integers, 3)), same(integers, ((1 << 31) - 1) << 29))
        return builder.bitcast(one, self._doubles), builder.bitcast(other, self._doubles)

    def total(self) -> Any:  # noqa: ANN401
        """Return the sum, float64: the chains, added from 0.0 in their order."""
        builder, half = self._builder, self._width // 2
        order = ir.Constant(
            ir.VectorType(U32, self._width), [lane // 2 + half * (lane % 2) for lane in range(self._width)]
        )
        total = ir.Constant(ir.DoubleType(), 0.0)
        for evens, odds in self._chains:
            lanes = builder.shuffle_vector(builder.load(evens), builder.load(odds), order)
            total = reduced(builder, "fadd", lanes, total)
        return builder.fmul(total, ir.Constant(ir.DoubleType(), 2.0**896)) if self._is_single else total


class Signs:
    """What the bits of words say about lanes. Words are read in pieces, of as many bits as a register has lanes.

    Without masks in registers, a table has the lanes of each byte, all 0 but the sign. A load from it costs less than
    to take a byte apart with shifts, which wait for the same few units as the arithmetic.
    """

    def __init__(self, context: Any, builder: Any, real: Any) -> None:  # noqa: ANN401
        self._width, self._builder = register_lanes(context), builder
        size = 32 if isinstance(real, ir.FloatType) else 64
        self._reals, self._integers = ir.VectorType(real, self._width), ir.VectorType(ir.IntType(size), self._width)
        self._table = None if has_feature(context, "avx512f") else _table_of_signs(builder.module, self._integers)

    def read(self, pointer: Any) -> list[Any]:  # noqa: ANN401
        """Return the word at an address."""
        # memory -> scalars of a few bits each
        builder = self._builder
        start = builder.bitcast(pointer, ir.IntType(self._width).as_pointer())
        addresses = [builder.gep(start, [ir.Constant(U32, number)]) for number in range(LANES // self._width)]
        return [builder.load(address, align=1) for address in addresses]

    def are_set(self, bits: Any) -> Any:  # noqa: ANN401
        """Return lanes of 1 bit."""
        builder = self._builder
        if self._table is None:
            return builder.bitcast(bits, ir.VectorType(ir.IntType(1), self._width))
        return builder.icmp_signed("<", self._at_sign(bits), same(self._integers, 0))

    def of(self, bits: Any, sizes: Any) -> Any:  # noqa: ANN401
        """Return lanes of sizes, negative where bits are set."""
        builder = self._builder
        if self._table is None:  # masks choose between lanes in one instruction
            return builder.select(self.are_set(bits), builder.fneg(sizes), sizes)
        # lanes: bits at the sign's place, exclusive or with the sizes
        return builder.bitcast(builder.xor(builder.bitcast(sizes, self._integers), self._at_sign(bits)), self._reals)

    def _at_sign(self, bits: Any) -> Any:  # noqa: ANN401
        # scalar -> the table's lanes of that number
        number = self._builder.zext(bits, U32)
        return self._builder.load(self._builder.gep(self._table, [ir.Constant(U32, 0), number]))


def _table_of_signs(module: Any, lanes: Any) -> Any:  # noqa: ANN401
    """Return a table in the program: lanes that are 0 but for the sign, which is set as the bits of a byte are."""
    top = 1 << (lanes.element.width - 1)
    rows = [ir.Constant(lanes, [top * (byte >> lane & 1) for lane in range(lanes.count)]) for byte in range(256)]
    return cgutils.global_constant(module, ".signs_of_bytes", ir.Constant(ir.ArrayType(lanes, 256), rows))


def division(builder: Any, kind: Any, divisor: Any, width: int) -> Callable[[Any], Any]:  # noqa: ANN401
    """Return what divides lanes by a number, by one over a power of two, (0, factor), or by nothing."""
    # lanes / divisor; a division takes longer than reading the lanes, so a power of two is multiplied: the same bits
    if isinstance(kind, types.NoneType):
        return lambda lanes: lanes
    if isinstance(kind, types.UniTuple):
        factor = splat(builder, builder.extract_value(divisor, 1), width)
        return lambda lanes: builder.fmul(lanes, factor)
    by = splat(builder, divisor, width)
    return lambda lanes: builder.fdiv(lanes, by)


def word_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> tuple[Any, int]:  # noqa: ANN401
    """Return a pointer to the word about the 64 elements from `at` on, and its alignment."""
    number = builder.lshr(at, ir.Constant(at.type, LANES.bit_length() - 1))
    pointer, align = vector_at(context, builder, array_type, array, number, 1)
    return builder.bitcast(pointer, WORD.as_pointer()), align


def _run(past: bool) -> Any:  # noqa: ANN401
    """Return the intrinsic of a pass over groups of 64; past: it stores the new momentum past the caches."""

    @intrinsic  # type: ignore[untyped-decorator]
    def correct_run(
        typing: Any, words: Any, vector: Any, residual: Any, momentum: Any, new_momentum: Any, place: Any, n: Any,  # noqa: ANN401
        mu: Any, decay: Any, divisor: Any,  # noqa: ANN401
    ) -> Codegen:  # fmt: skip
        """Take `reference.residuals.correct_signs`, or the step with momentum, on n groups of 64 elements.

        Args:
            words: (n,) uint64; the signs of a group are written to one of them.
            vector: Contiguous float32 or float64, overwritten; all arrays and scalars are of its type.
            residual: Residual before the step; None to leave the vector as it is.
            momentum: Momentum before the step; None for none.
            new_momentum: Overwritten; None for none.
            place: Index of the first element, a multiple of 64.
            n: Number of groups.
            mu: The momentum factor.
            decay: Factor of the residual.
            divisor: The divisor of the vector, where there is no momentum; None for 1.

        Returns:
            float64, the sum of the magnitudes, if it is below `BEYOND`.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            words_, vector_, residual_, momentum_, new_momentum_, place, n, *scalars = args
            width = register_lanes(context)
            mu, decay = (splat(builder, scalar, width) for scalar in scalars[:2])
            divided = division(builder, signature.args[-1], scalars[2], width)

            def corrected(block: Any) -> Any:  # noqa: ANN401
                """Return a few corrected elements; they and their new momentum go to memory."""
                value = block.read(vector_, _VECTOR)
                if isinstance(signature.args[_RESIDUAL], types.NoneType):
                    return value
                carried = builder.fmul(decay, block.read(residual_, _RESIDUAL))
                if isinstance(signature.args[_MOMENTUM], types.NoneType):
                    # lanes: value / divisor + decay * residual -> memory
                    value = builder.fadd(divided(value), carried)
                else:
                    # lanes: new = mu * momentum + g -> memory; then (mu * new + g) + decay * residual -> memory
                    new = builder.fadd(builder.fmul(mu, block.read(momentum_, _MOMENTUM)), value)
                    block.write(new, new_momentum_, _NEW_MOMENTUM, past_caches=past)
                    value = builder.fadd(builder.fadd(builder.fmul(mu, new), value), carried)
                block.write(value, vector_, _VECTOR)
                return value

            magnitudes = Magnitudes(builder, context.get_data_type(signature.args[_VECTOR].dtype), width)
            with cgutils.for_range(builder, n) as loop:
                at = builder.add(place, builder.mul(loop.index, ir.Constant(place.type, LANES)))
                block = Block(context, builder, signature.args, at, width)
                word = Word(builder)
                for lane in range(0, LANES, width):
                    block.lane = lane
                    lanes = corrected(block)
                    word.add(builder.fcmp_ordered("<", lanes, same(lanes.type, 0.0)), lane)
                    magnitudes.add(lanes, lane // width)
                # word -> memory, at the group's number
                pointer, size = word_at(context, builder, signature.args[_WORDS], words_, at)
                builder.store(word.value(), pointer, align=size)
            return magnitudes.total()

        kind = vector.dtype
        return types.float64(
            words, vector, residual, momentum, new_momentum, types.intp, types.intp, kind, kind, divisor
        ), codegen

    return correct_run


@intrinsic  # type: ignore[untyped-decorator]
def scaled_run(typing: Any, words: Any, out: Any, sizes: Any, place: Any, start: Any, n: Any, sign: Any) -> Codegen:  # noqa: ANN401
    """Write or add signs times sizes on n groups of 64 elements: `reference.residuals.put_scaled_signs` and the other.

    Args:
        words: (n,) uint64, the signs; a set bit means -size.
        out: Contiguous float32 or float64, overwritten; all numbers are of its type.
        sizes: One size for all elements, or an array of one for each.
        place: Index of the first element in `out`, a multiple of 64.
        start: Index of its size, where there is an array.
        n: Number of groups.
        sign: None to overwrite; 1 to add.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        words_, out_, sizes_, place, start, n, _ = args
        width, real = register_lanes(context), context.get_data_type(signature.args[1].dtype)
        signs = Signs(context, builder, real)
        is_array = isinstance(signature.args[2], types.Array)
        alike = None if is_array else splat(builder, sizes_, width)
        with cgutils.for_range(builder, n) as loop:
            ahead = builder.mul(loop.index, ir.Constant(place.type, LANES))
            at = builder.add(place, ahead)
            block = Block(context, builder, signature.args, at, width)
            own = Block(context, builder, signature.args, builder.add(start, ahead), width)
            pointer, _ = word_at(context, builder, signature.args[0], words_, at)
            word = signs.read(pointer)
            for lane in range(0, LANES, width):
                block.lane = own.lane = lane
                # lanes: signed sizes, added to what is there -> out
                value = signs.of(word[lane // width], own.read(sizes_, 2) if is_array else alike)
                if not isinstance(signature.args[6], types.NoneType):
                    value = builder.fadd(block.read(out_, 1), value)
                block.write(value, out_, 1)
        return context.get_dummy_value()

    return types.none(words, out, sizes, types.intp, types.intp, types.intp, sign), codegen


correct_run, correct_run_past_caches = _run(False), _run(True)
