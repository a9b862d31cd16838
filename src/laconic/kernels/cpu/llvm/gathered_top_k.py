"""A tensor scaled and added to a vector, 64 elements at a time, and which of them reach a magnitude.

For `cpu/gathered_top_k.py`; reference: `reference/gathered_top_k.py`. The bits are the same: no operation is fused.
"""

from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.vectors import (
    LANES,
    Block,
    Codegen,
    Word,
    intrinsic,
    register_lanes,
    same,
    splat,
    types,
)


@intrinsic  # type: ignore[untyped-decorator]
def scaled_at(
    typing: Any, out: Any, found: Any, one: Any, plus: Any, place: Any, by: Any, mask: Any, floor: Any, past: Any,  # noqa: ANN401
) -> Codegen:  # fmt: skip
    """Write one * by + plus to 64 elements of `out` from `place` on.

    Args:
        out: Contiguous float32 or float64, overwritten; all floats are of its type.
        found: (64,) integers of its width, overwritten with the bits of the new elements.
        one: The tensor's elements.
        plus: What is added, or None for 0.0.
        place: Index of the first element.
        by: The tensor's factor.
        mask: All bits but the sign, of `found`'s type.
        floor: A magnitude as bits, likewise.
        past: 1 to store past the caches, where `out` must lie at a multiple of 64 bytes; None for ordinary stores.

    Returns:
        Two uint64: which elements reach the floor, and which are inf or NaN.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        out, found, one, plus, place, by, mask, floor, _ = args
        has_plus, past_caches = (not isinstance(signature.args[i], types.NoneType) for i in (3, -1))
        n = register_lanes(context)
        block = Block(context, builder, signature.args, place, n)
        buffer = Block(context, builder, signature.args, ir.Constant(place.type, 0), n)
        factor, all_but_sign, lowest = (splat(builder, scalar, n) for scalar in (by, mask, floor))
        reached, non_finite = Word(builder), Word(builder)
        for lane in range(0, LANES, n):
            block.lane = buffer.lane = lane
            # lanes: one * by, then + plus -> memory, and their bits -> the buffer
            product = builder.fmul(block.read(one, 2), factor)
            zeros = same(product.type, 0.0)
            value = builder.fadd(product, block.read(plus, 3) if has_plus else zeros)
            block.write(value, out, 0, past_caches=past_caches)
            bits = builder.bitcast(value, lowest.type)
            buffer.write(bits, found, 1)
            # lanes: magnitudes >= floor; x - x is 0 for finite x, NaN otherwise -> words
            reached.add(builder.icmp_signed(">=", builder.and_(bits, all_but_sign), lowest), lane)
            non_finite.add(builder.fcmp_unordered("!=", builder.fsub(value, value), zeros), lane)
        return context.make_tuple(builder, signature.return_type, [reached.value(), non_finite.value()])

    integer = found.dtype
    return types.UniTuple(types.uint64, 2)(
        out, found, one, plus, types.intp, out.dtype, integer, integer, past
    ), codegen
