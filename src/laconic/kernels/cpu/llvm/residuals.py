"""Error feedback on runs of 64 elements: what is corrected, its signs, and the sum of its magnitudes.

For the passes of `cpu/residuals.py`. Reference: `reference/residuals.py`. Elements and signs are the same bits: no
operation is fused or reordered. Magnitudes are added in float64, in 16 chains: that sum agrees to the tolerance that
the reference states.
"""

from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.reductions import reduced
from laconic.kernels.cpu.llvm.vectors import (
    LANES,
    WORD,
    Block,
    Codegen,
    cgutils,
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
            divisor: The divisor of the vector, where there is no momentum.

        Returns:
            float64, the sum of the magnitudes.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            words_, vector_, residual_, momentum_, new_momentum_, place, n, *scalars = args
            width = register_lanes(context)
            mu, decay, divisor = (splat(builder, scalar, width) for scalar in scalars)

            def corrected(block: Any) -> Any:  # noqa: ANN401
                """Return a few corrected elements; they and their new momentum go to memory."""
                value = block.read(vector_, _VECTOR)
                if isinstance(signature.args[_RESIDUAL], types.NoneType):
                    return value
                carried = builder.fmul(decay, block.read(residual_, _RESIDUAL))
                if isinstance(signature.args[_MOMENTUM], types.NoneType):
                    # lanes: value / divisor + decay * residual -> memory
                    value = builder.fadd(builder.fdiv(value, divisor), carried)
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
                number = builder.lshr(at, ir.Constant(at.type, LANES.bit_length() - 1))
                pointer, size = vector_at(context, builder, signature.args[_WORDS], words_, number, 1)
                builder.store(word, builder.bitcast(pointer, WORD.as_pointer()), align=size)
            # 16 chains -> one float64, added from 0.0 in the order of the lanes
            total = ir.Constant(ir.DoubleType(), 0.0)
            for chain in chains:
                total = reduced(builder, "fadd", builder.load(chain), total)
            return total

        kind = vector.dtype
        return types.float64(
            words, vector, residual, momentum, new_momentum, types.intp, types.intp, kind, kind, kind
        ), codegen

    return correct_run


correct_run, correct_run_past_caches = _run(False), _run(True)
