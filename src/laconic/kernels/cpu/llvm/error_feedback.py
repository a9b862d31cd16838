"""Error feedback on 64 elements at a time: what is sent of them, and the new residual.

For the error feedback steps of sign methods (`cpu/error_feedback.py`). Their reference are the functions of the same
names in `reference/signs.py`. The bits are the same: no operation is fused or reordered.

A register of elements at a time goes from memory through all of the arithmetic and back, so that loads, stores and
arithmetic overlap. Results about the 64 elements are words of 64 bits, lowest bit first.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.vectors import (
    LANES,
    Block,
    Codegen,
    Word,
    hash_within,
    intrinsic,
    register_lanes,
    same,
    splat,
    types,
)


def _update(context: Any, block: Block, value_of: Callable[[], Any], out: Any, c: Any, draw: Any, past: bool) -> Any:  # noqa: ANN401
    """Write the new residual of 64 elements: corrected - c sign(corrected) where selected, corrected elsewhere.

    Args:
        block: Reads and writes the arrays; array 0 is `out`.
        value_of: Returns the corrected gradient of the block's current elements, as lanes.
        out: The new residual.
        c: Scalar, the magnitude that a sent sign stands for.
        draw: Scalars: the first coordinate, the two halves of the mixed key, the threshold less 1.
        past: Store past the caches.

    Returns:
        Three uint64: which elements are negative, which are selected, and which are inf or NaN.
    """
    builder, n = block.builder, block.LANES
    # scalars -> lanes, once for all registers
    offset, low, high, limit = (splat(builder, scalar, n) for scalar in draw)
    plus, minus = splat(builder, c, n), splat(builder, builder.fneg(c), n)
    words = Word(builder), Word(builder), Word(builder)
    for lane in range(0, LANES, n):
        block.lane = lane
        corrected = value_of()
        zeros = same(corrected.type, 0.0)
        # lanes: hash32 of the coordinates <= limit -> which are selected
        coordinates = builder.add(offset, ir.Constant(offset.type, list(range(lane, lane + n))))
        selected = hash_within(builder, coordinates, low, high, limit)
        # lanes: corrected - (-c, +c where selected, else 0) -> the new residual
        negative = builder.fcmp_ordered("<", corrected, zeros)
        sent = builder.select(selected, builder.select(negative, minus, plus), zeros)
        block.write(builder.fsub(corrected, sent), out, 0, past_caches=past)
        # lanes: x - x is 0 for finite x, NaN otherwise -> which are inf or NaN
        non_finite = builder.fcmp_unordered("!=", builder.fsub(corrected, corrected), zeros)
        for word, bits in zip(words, (negative, selected, non_finite), strict=True):
            word.add(bits, lane)
    return context.make_tuple(builder, types.UniTuple(types.uint64, 3), [word.value() for word in words])


_DRAW_TYPES = (types.uint32, types.uint32, types.uint32, types.uint32)


@intrinsic  # type: ignore[untyped-decorator]
def error_feedback_step_at(
    typing: Any, new_residual: Any, new_momentum: Any, residual: Any, momentum: Any, gradient: Any,  # noqa: ANN401
    place: Any, mu: Any,  # noqa: ANN401
    decay: Any, c: Any, offset: Any, low: Any, high: Any, limit: Any, past: Any,  # noqa: ANN401
) -> Codegen:  # fmt: skip
    """Take `reference.signs.error_feedback_step` on the 64 elements from `place` on.

    Args:
        new_residual: Contiguous float32 or float64, overwritten; all arrays and scalars are of its type.
        new_momentum: Overwritten.
        residual: Residual before the step.
        momentum: Momentum before the step.
        gradient: The gradient.
        place: Index of the first element.
        mu: The momentum factor.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        offset: uint32, number of the first coordinate.
        low: uint32, the low half of the mixed key.
        high: uint32, the high half of the mixed key.
        limit: uint32, the threshold less 1.
        past: 1 to store past the caches; None for ordinary stores.

    Returns:
        The words of `_error_feedback`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        new_residual, new_momentum, residual, momentum, gradient, place, mu, decay, c, *draw, _ = args
        past = not isinstance(signature.args[-1], types.NoneType)
        block = Block(context, builder, signature.args, place, register_lanes(context))
        factor, share = (splat(builder, scalar, block.LANES) for scalar in (mu, decay))

        def corrected() -> Any:  # noqa: ANN401
            """Return the corrected gradient of a few elements, and write their new momentum."""
            # lanes: new = mu * momentum + g -> memory; then (mu * new + g) + decay * residual
            g = block.read(gradient, 4)
            new = builder.fadd(builder.fmul(factor, block.read(momentum, 3)), g)
            before = block.read(residual, 2)
            block.write(new, new_momentum, 1, past_caches=past)
            return builder.fadd(builder.fadd(builder.fmul(factor, new), g), builder.fmul(share, before))

        return _update(context, block, corrected, new_residual, c, draw, past)

    kind = residual.dtype
    return types.UniTuple(types.uint64, 3)(
        new_residual, new_momentum, residual, momentum, gradient, types.intp, kind, kind, kind, *_DRAW_TYPES, past
    ), codegen


@intrinsic  # type: ignore[untyped-decorator]
def error_feedback_total_at(
    typing: Any, new_residual: Any, residual: Any, total: Any, place: Any, divisor: Any, scale: Any,  # noqa: ANN401
    decay: Any, c: Any,  # noqa: ANN401
    offset: Any, low: Any, high: Any, limit: Any, past: Any,  # noqa: ANN401
) -> Codegen:  # fmt: skip
    """Take `reference.signs.error_feedback_total` on the 64 elements from `place` on.

    Args:
        new_residual: Contiguous float32 or float64, overwritten; the residual and scalars are of its type.
        residual: Residual before the step.
        total: Of the residual's type, or int8.
        place: Index of the first element.
        divisor: The divisor of the total.
        scale: Factor of the mean.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        offset: uint32, number of the first coordinate.
        low: uint32, the low half of the mixed key.
        high: uint32, the high half of the mixed key.
        limit: uint32, the threshold less 1.
        past: 1 to store past the caches; None for ordinary stores.

    Returns:
        The words of `_error_feedback`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        new_residual, residual, total, place, divisor, scale, decay, c, *draw, _ = args
        past = not isinstance(signature.args[-1], types.NoneType)
        block = Block(context, builder, signature.args, place, register_lanes(context))
        n, factor, share = (splat(builder, scalar, block.LANES) for scalar in (divisor, scale, decay))

        def corrected() -> Any:  # noqa: ANN401
            """Return the corrected mean of a few elements."""
            # lanes: total / divisor, int8 sums as floats first; then decay * residual + scale * mean
            votes, before = block.read(total, 2), block.read(residual, 1)
            if votes.type != before.type:
                votes = builder.sitofp(votes, before.type)
            mean = builder.fdiv(votes, n)
            return builder.fadd(builder.fmul(share, before), builder.fmul(factor, mean))

        return _update(context, block, corrected, new_residual, c, draw, past)

    kind = residual.dtype
    return types.UniTuple(types.uint64, 3)(
        new_residual, residual, total, types.intp, kind, kind, kind, kind, *_DRAW_TYPES, past
    ), codegen
