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
    cgutils,
    has_feature,
    intrinsic,
    register_lanes,
    same,
    splat,
    types,
    vector_at,
)

_CHAINS = 16  # of the sum of magnitudes, whatever the registers' width
_WORDS, _VECTOR, _RESIDUAL, _MOMENTUM, _NEW_MOMENTUM = range(5)  # of the intrinsic's arguments


def _magnitudes(builder: Any, lanes: Any) -> Any:  # noqa: ANN401
    """Return the magnitudes of floats, as float64."""
    # lanes: bits without the sign, then widened to float64
    width = 32 if isinstance(lanes.type.element, ir.FloatType) else 64
    integers = ir.VectorType(ir.IntType(width), lanes.type.count)
    bits = builder.and_(builder.bitcast(lanes, integers), same(integers, (1 << (width - 1)) - 1))
    magnitudes = builder.bitcast(bits, lanes.type)
    return builder.fpext(magnitudes, ir.VectorType(ir.DoubleType(), lanes.type.count)) if width == 32 else magnitudes


class _SignedSizes:
    """Sizes with the signs that words say: the bit of an element moves to the sign's place, exclusive or its size."""

    def __init__(self, context: Any, builder: Any, real: Any) -> None:  # noqa: ANN401
        width, self._has_masks = register_lanes(context), has_feature(context, "avx512f")
        self._builder, self._reals = builder, ir.VectorType(real, width)
        self._size = 32 if isinstance(real, ir.FloatType) else 64
        self._integers = ir.VectorType(ir.IntType(self._size), width)
        # constants: how far the bit of each lane is from the sign's bit, and that bit
        self._left = ir.Constant(self._integers, [self._size - 1 - lane for lane in range(width)])
        self._top = same(self._integers, 1 << (self._size - 1))

    def of(self, word: Any, lane: int, sizes: Any) -> Any:  # noqa: ANN401
        """Return lanes of sizes, negative where the word's bits from `lane` on are set."""
        builder = self._builder
        if self._has_masks:  # which choose between lanes in one instruction
            bits = builder.trunc(builder.lshr(word, ir.Constant(WORD, lane)), ir.IntType(self._reals.count))
            mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), self._reals.count))
            return builder.select(mask, builder.fneg(sizes), sizes)
        # scalar word -> lanes of its bits at the sign's place -> exclusive or with the sizes
        bits = builder.lshr(word, ir.Constant(WORD, lane))
        bits = bits if self._size == 64 else builder.trunc(bits, ir.IntType(self._size))
        flips = builder.and_(builder.shl(splat(builder, bits, self._reals.count), self._left), self._top)
        return builder.bitcast(builder.xor(builder.bitcast(sizes, self._integers), flips), self._reals)


def _division(builder: Any, kind: Any, divisor: Any, width: int) -> Callable[[Any], Any]:  # noqa: ANN401
    """Return what divides lanes by a number, by one over a power of two, (0, factor), or by nothing."""
    # lanes / divisor; a division takes longer than reading the lanes, so a power of two is multiplied: the same bits
    if isinstance(kind, types.NoneType):
        return lambda lanes: lanes
    if isinstance(kind, types.UniTuple):
        factor = splat(builder, builder.extract_value(divisor, 1), width)
        return lambda lanes: builder.fmul(lanes, factor)
    by = splat(builder, divisor, width)
    return lambda lanes: builder.fdiv(lanes, by)


def _word_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> tuple[Any, int]:  # noqa: ANN401
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
            float64, the sum of the magnitudes.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            words_, vector_, residual_, momentum_, new_momentum_, place, n, *scalars = args
            width = register_lanes(context)
            mu, decay = (splat(builder, scalar, width) for scalar in scalars[:2])
            divided = _division(builder, signature.args[-1], scalars[2], width)

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

            # 16 chains: stack variables, which LLVM turns into registers
            doubles = ir.VectorType(ir.DoubleType(), width)
            chains = [cgutils.alloca_once(builder, doubles) for _ in range(_CHAINS // width)]
            for chain in chains:
                builder.store(same(doubles, 0.0), chain)
            with cgutils.for_range(builder, n) as loop:
                at = builder.add(place, builder.mul(loop.index, ir.Constant(place.type, LANES)))
                block = Block(context, builder, signature.args, at, width)
                word = ir.Constant(WORD, 0)
                for lane in range(0, LANES, width):
                    block.lane = lane
                    lanes = corrected(block)
                    # signs into the word, from bit `lane` on; magnitudes into the chains
                    negative = builder.fcmp_ordered("<", lanes, same(lanes.type, 0.0))
                    bits = builder.zext(builder.bitcast(negative, ir.IntType(width)), WORD)
                    word = builder.or_(word, builder.shl(bits, ir.Constant(WORD, lane)))
                    chain = chains[lane // width % len(chains)]
                    builder.store(builder.fadd(builder.load(chain), _magnitudes(builder, lanes)), chain)
                # word -> memory, at the group's number
                pointer, size = _word_at(context, builder, signature.args[_WORDS], words_, at)
                builder.store(word, pointer, align=size)
            # 16 chains -> one float64, added from 0.0 in the order of the lanes
            total = ir.Constant(ir.DoubleType(), 0.0)
            for chain in chains:
                total = reduced(builder, "fadd", builder.load(chain), total)
            return total

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
        signed = _SignedSizes(context, builder, real)
        is_array = isinstance(signature.args[2], types.Array)
        alike = None if is_array else splat(builder, sizes_, width)
        with cgutils.for_range(builder, n) as loop:
            ahead = builder.mul(loop.index, ir.Constant(place.type, LANES))
            at = builder.add(place, ahead)
            block = Block(context, builder, signature.args, at, width)
            own = Block(context, builder, signature.args, builder.add(start, ahead), width)
            pointer, align = _word_at(context, builder, signature.args[0], words_, at)
            word = builder.load(pointer, align=align)
            for lane in range(0, LANES, width):
                block.lane = own.lane = lane
                # lanes: signed sizes, added to what is there -> out
                value = signed.of(word, lane, own.read(sizes_, 2) if is_array else alike)
                if not isinstance(signature.args[6], types.NoneType):
                    value = builder.fadd(block.read(out_, 1), value)
                block.write(value, out_, 1)
        return context.get_dummy_value()

    return types.none(words, out, sizes, types.intp, types.intp, types.intp, sign), codegen


def _mean(is_second: bool, past: bool) -> Any:  # noqa: ANN401
    """Return the intrinsic of one of a server's two passes; past: it stores past the caches.

    Args:
        is_second: Write what is unsent of the answer, otherwise measure what it is made of.
        past: Store past the caches.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def mean_run(
        typing: Any, words: Any, voters: Any, sizes: Any, residual: Any, out: Any, place: Any, n: Any,  # noqa: ANN401
        n_voters: Any, divisor: Any, decay: Any, answer: Any,  # noqa: ANN401
    ) -> Codegen:  # fmt: skip
        """Add up signed sizes of voters, divide, and add the residual, on n groups of 64 elements.

        Args:
            words: (groups,) uint64; the first pass writes the signs of the sums to it.
            voters: (n_voters,) uint64, the address of the bytes of each voter's signs.
            sizes: (n_voters,), what a sign of each stands for; all numbers are of one type.
            residual: (d,), residual before the step.
            out: (d,); the second pass writes the new residual to it.
            place: Index of the first element, a multiple of 64.
            n: Number of groups.
            n_voters: Number of voters.
            divisor: The divisor of the sum.
            decay: Factor of the residual.
            answer: What a sign of the answer stands for, for the second pass.

        Returns:
            float64, the sum of the magnitudes, of the first pass.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            words_, voters_, sizes_, residual_, out_, place, n, n_voters, *scalars = args
            width, real = register_lanes(context), context.get_data_type(signature.args[3].dtype)
            lanes, doubles = ir.VectorType(real, width), ir.VectorType(ir.DoubleType(), width)
            divided = _division(builder, signature.args[-3], scalars[0], width)
            decay, plus = (splat(builder, scalar, width) for scalar in scalars[1:])
            minus, signed = builder.fneg(plus), _SignedSizes(context, builder, real)
            # stack variables, which LLVM turns into registers: 64 sums, and the chains of magnitudes
            sums = [cgutils.alloca_once(builder, lanes) for _ in range(LANES // width)]
            chains = [cgutils.alloca_once(builder, doubles) for _ in range(_CHAINS // width)]
            for chain in chains:
                builder.store(same(doubles, 0.0), chain)
            with cgutils.for_range(builder, n) as loop:
                at = builder.add(place, builder.mul(loop.index, ir.Constant(place.type, LANES)))
                block = Block(context, builder, signature.args, at, width)
                for total in sums:
                    builder.store(same(lanes, 0.0), total)
                with cgutils.for_range(builder, n_voters) as inner:
                    # one voter: its word and size -> 64 signed sizes, added to the sums
                    pointer, align = vector_at(context, builder, signature.args[1], voters_, inner.index, 1)
                    address = builder.extract_element(builder.load(pointer, align=align), ir.Constant(U32, 0))
                    address = builder.add(address, builder.lshr(at, ir.Constant(at.type, 3)))
                    word = builder.load(builder.inttoptr(address, WORD.as_pointer()), align=1)
                    pointer, align = vector_at(context, builder, signature.args[2], sizes_, inner.index, 1)
                    size = builder.extract_element(builder.load(pointer, align=align), ir.Constant(U32, 0))
                    size = splat(builder, size, width)
                    for number, total in enumerate(sums):
                        vote = signed.of(word, number * width, size)
                        builder.store(builder.fadd(builder.load(total), vote), total)
                word = ir.Constant(WORD, 0)
                for number, total in enumerate(sums):
                    block.lane = number * width
                    # lanes: sum / divisor + decay * residual, and its sign
                    carried = builder.fmul(decay, block.read(residual_, 3))
                    value = builder.fadd(divided(builder.load(total)), carried)
                    negative = builder.fcmp_ordered("<", value, same(lanes, 0.0))
                    if is_second:
                        # lanes: less the answer -> out
                        left = builder.fsub(value, builder.select(negative, minus, plus))
                        block.write(left, out_, 4, past_caches=past)
                    else:
                        # signs into the word, magnitudes into the chains
                        bits = builder.zext(builder.bitcast(negative, ir.IntType(width)), WORD)
                        word = builder.or_(word, builder.shl(bits, ir.Constant(WORD, block.lane)))
                        chain = chains[number % len(chains)]
                        builder.store(builder.fadd(builder.load(chain), _magnitudes(builder, value)), chain)
                if not is_second:
                    pointer, align = _word_at(context, builder, signature.args[0], words_, at)
                    builder.store(word, pointer, align=align)
            total = ir.Constant(ir.DoubleType(), 0.0)
            for chain in chains:
                total = reduced(builder, "fadd", builder.load(chain), total)
            return total

        kind, index = residual.dtype, types.intp
        return types.float64(words, voters, sizes, residual, out, index, index, index, divisor, kind, kind), codegen

    return mean_run


mean_measured = _mean(False, False)
mean_left, mean_left_past_caches = _mean(True, False), _mean(True, True)
correct_run, correct_run_past_caches = _run(False), _run(True)
