"""A server's answer to scaled signs, on runs of 64 elements: signs of the packets added up, divided and corrected.

For the passes of `cpu/scaled_answers.py`. Reference: `reference/scaled_answers.py`. Elements and signs are the same
bits: no operation is fused or reordered, but that -0.0 may come for 0.0 and is mended before it is written. Magnitudes
are added as in `residuals.py`.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.residuals import Magnitudes, Signs, division, word_at
from laconic.kernels.cpu.llvm.vectors import (
    LANES,
    U32,
    WORD,
    Block,
    Codegen,
    Word,
    cgutils,
    intrinsic,
    register_lanes,
    same,
    splat,
    types,
    vector_at,
)

_AHEAD = 1 << 12  # bytes; the residual is the one long array that is read


class _Voters:
    """Reads the words of voters, and what a sign of each stands for."""

    def __init__(self, context: Any, builder: Any, array_types: Any, arrays: Any, n: Any) -> None:  # noqa: ANN401
        self.builder, self.n = builder, n
        self._context, self._types, self._arrays = context, array_types, arrays

    def _element(self, array: int, number: Any) -> Any:  # noqa: ANN401
        # one element of an array: memory -> scalar
        pointer, align = vector_at(self._context, self.builder, self._types[array], self._arrays[array], number, 1)
        return self.builder.extract_element(self.builder.load(pointer, align=align), ir.Constant(U32, 0))

    def size(self, number: Any) -> Any:  # noqa: ANN401
        """Return what a sign of a voter stands for."""
        return self._element(1, number)

    def signs(self, number: Any, at: Any) -> Any:  # noqa: ANN401
        """Return a pointer to a voter's signs of the 64 elements from `at` on."""
        # address of the voter's bytes + at / 8 -> pointer
        builder = self.builder
        address = builder.add(self._element(0, number), builder.lshr(at, ir.Constant(at.type, 3)))
        return builder.inttoptr(address, WORD.as_pointer())


def _means(
    voters: _Voters, signs: Signs, sums: Any, kind: Any, divisor: Any, width: int  # noqa: ANN401
) -> Callable[[Any], Callable[[int], Any]]:  # fmt: skip
    """Return a function of a group's first element, which returns one of a register's number: the means as lanes.

    Arguments as for `_mean`, and kind: numba's type of the divisor.
    """
    builder = voters.builder
    same_sign, other_sign = (splat(builder, builder.extract_value(sums, number), width) for number in range(2))
    zero, one = ir.Constant(voters.n.type, 0), ir.Constant(voters.n.type, 1)
    second = builder.select(builder.icmp_signed("<", one, voters.n), one, zero)
    divided = division(builder, kind, divisor, width)

    def of_group(at: Any) -> Callable[[int], Any]:  # noqa: ANN401
        one_word, other_word = (signs.read(voters.signs(number, at)) for number in (zero, second))
        differ = [builder.xor(one, other) for one, other in zip(one_word, other_word, strict=True)]

        def of_two(number: int) -> Any:  # noqa: ANN401
            # lanes: the sum or the difference of two sizes, negative where the first one's bit is set
            sizes = builder.select(signs.are_set(differ[number]), other_sign, same_sign)
            return signs.of(one_word[number], sizes)

        if isinstance(kind, types.NoneType):
            return of_two
        # stack variables, which LLVM turns into registers: 64 sums, to which the other voters are added one by one
        totals = [cgutils.alloca_once(builder, same_sign.type) for _ in range(LANES // width)]
        for number, total in enumerate(totals):
            builder.store(of_two(number), total)
        with cgutils.for_range(builder, voters.n, start=ir.Constant(voters.n.type, 2)) as inner:
            word = signs.read(voters.signs(inner.index, at))
            size = splat(builder, voters.size(inner.index), width)
            for number, total in enumerate(totals):
                vote = signs.of(word[number], size)
                builder.store(builder.fadd(builder.load(total), vote), total)
        return lambda number: divided(builder.load(totals[number]))

    return of_group


def _mean(is_second: bool, past: bool) -> Any:  # noqa: ANN401
    """Return the intrinsic of one of a server's two passes; past: it stores past the caches.

    Args:
        is_second: Write what is unsent of the answer, otherwise measure what it is made of.
        past: Store past the caches.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def mean_run(
        typing: Any, words: Any, voters: Any, sizes: Any, residual: Any, out: Any, place: Any, n: Any,  # noqa: ANN401
        n_voters: Any, sums: Any, divisor: Any, decay: Any, answer: Any,  # noqa: ANN401
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
            sums: What the first two voters' signs stand for where they agree, and where they differ and the first
                one's is positive; both are the first one's size where there is no other.
            divisor: The divisor of the sum; None for sums that are divided already, of at most two voters.
            decay: Factor of the residual.
            answer: What a sign of the answer stands for, for the second pass.

        Returns:
            float64, the sum of the magnitudes, if it is below `BEYOND`; of the first pass.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            words_, voters_, sizes_, residual_, out_, place, n, n_voters, sums, *scalars = args
            width, real = register_lanes(context), context.get_data_type(signature.args[3].dtype)
            lanes = ir.VectorType(real, width)
            decay, plus = (splat(builder, scalar, width) for scalar in scalars[1:])
            minus, signs = builder.fneg(plus), Signs(context, builder, real)
            voters = _Voters(context, builder, signature.args[1:3], (voters_, sizes_), n_voters)
            mean_of = _means(voters, signs, sums, signature.args[-3], scalars[0], width)
            magnitudes = Magnitudes(builder, real, width)
            with cgutils.for_range(builder, n) as loop:
                at = builder.add(place, builder.mul(loop.index, ir.Constant(place.type, LANES)))
                block = Block(context, builder, signature.args, at, width)
                mean, word = mean_of(at), Word(builder)
                for number in range(LANES // width):
                    block.lane = number * width
                    # lanes: mean + decay * residual, and its sign
                    value = builder.fadd(mean(number), builder.fmul(decay, block.read(residual_, 3, _AHEAD)))
                    negative = builder.fcmp_ordered("<", value, same(lanes, 0.0))
                    if is_second:
                        # lanes: 0.0 for -0.0 (of two sizes that differ by 0), less the answer -> out
                        value = builder.fadd(value, same(lanes, 0.0))
                        left = builder.fsub(value, builder.select(negative, minus, plus))
                        block.write(left, out_, 4, past_caches=past)
                    else:
                        word.add(negative, block.lane)
                        magnitudes.add(value, number)
                if not is_second:
                    pointer, align = word_at(context, builder, signature.args[0], words_, at)
                    builder.store(word.value(), pointer, align=align)
            return magnitudes.total()

        kind, index = residual.dtype, types.intp
        return types.float64(
            words, voters, sizes, residual, out, index, index, index, types.UniTuple(kind, 2), divisor, kind, kind
        ), codegen

    return mean_run


mean_measured = _mean(False, False)
mean_left, mean_left_past_caches = _mean(True, False), _mean(True, True)
