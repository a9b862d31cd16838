"""A step with error feedback on sixty-four entries at once: what to send of them, and what is owed afterwards.

Sixteen entries at a time go from memory through all of the arithmetic and back, so that memory and arithmetic keep
each other waiting as little as can be. No operation is fused or reordered: see plain_signs.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from laconic.kernels.cpu_words import LANES, WORD, Block, Codegen, hash_within, intrinsic, same, splat, types

_PIECE = Block.LANES


def _owing(context: Any, block: Block, wish_of: Callable[[], Any], out: Any, c: Any, coin: Any, past: bool) -> Any:  # noqa: ANN401
    """wish - c sign(wish) where kept into `out`, array 0.

    Returns the words of what is negative, of what is kept, and of what is inf or NaN.
    """
    builder = block.builder
    first, low, high, limit = (splat(builder, scalar, _PIECE) for scalar in coin)
    plus, minus = splat(builder, c, _PIECE), splat(builder, builder.fneg(c), _PIECE)
    words = [ir.Constant(WORD, 0)] * 3
    for piece in range(0, LANES, _PIECE):
        block.piece = piece
        wish = wish_of()
        zeros = same(wish.type, 0.0)
        coordinates = builder.add(first, ir.Constant(first.type, list(range(piece, piece + _PIECE))))
        kept = hash_within(builder, coordinates, low, high, limit)
        negative = builder.fcmp_ordered("<", wish, zeros)
        sent = builder.select(kept, builder.select(negative, minus, plus), zeros)
        block.write(builder.fsub(wish, sent), out, 0, past_caches=past)
        spoiled = builder.fcmp_unordered("!=", builder.fsub(wish, wish), zeros)
        for i, bits in enumerate((negative, kept, spoiled)):
            word = builder.zext(builder.bitcast(bits, ir.IntType(_PIECE)), WORD)
            words[i] = builder.or_(words[i], builder.shl(word, ir.Constant(WORD, piece)))
    return context.make_tuple(builder, types.UniTuple(types.uint64, 3), words)


_COIN = (types.uint32, types.uint32, types.uint32, types.uint32)


def _step(past: bool) -> Any:  # noqa: ANN401
    @intrinsic  # type: ignore[untyped-decorator]
    def owe_step(
        typing: Any, new_debt: Any, new_momentum: Any, debt: Any, momentum: Any, gradient: Any, place: Any, mu: Any,  # noqa: ANN401
        decay: Any, c: Any, first: Any, low: Any, high: Any, limit: Any,  # noqa: ANN401
    ) -> Codegen:  # fmt: skip
        """plain_signs.owe_step on the entries from `place` on; returns what `_owing` does."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            new_debt, new_momentum, debt, momentum, gradient, place, mu, decay, c, *coin = args
            block = Block(context, builder, signature.args, place)
            rate, share = splat(builder, mu, _PIECE), splat(builder, decay, _PIECE)

            def wish() -> Any:  # noqa: ANN401
                g = block.read(gradient, 4)
                new = builder.fadd(builder.fmul(rate, block.read(momentum, 3)), g)
                before = block.read(debt, 2)
                block.write(new, new_momentum, 1, past_caches=past)
                return builder.fadd(builder.fadd(builder.fmul(rate, new), g), builder.fmul(share, before))

            return _owing(context, block, wish, new_debt, c, coin, past)

        kind = debt.dtype
        return types.UniTuple(types.uint64, 3)(
            new_debt, new_momentum, debt, momentum, gradient, types.intp, kind, kind, kind, *_COIN
        ), codegen

    return owe_step


def _total(past: bool) -> Any:  # noqa: ANN401
    @intrinsic  # type: ignore[untyped-decorator]
    def owe_total(
        typing: Any, new_debt: Any, debt: Any, total: Any, place: Any, among: Any, scale: Any, decay: Any, c: Any,  # noqa: ANN401
        first: Any, low: Any, high: Any, limit: Any,  # noqa: ANN401
    ) -> Codegen:  # fmt: skip
        """plain_signs.owe_total on the entries from `place` on; returns what `_owing` does."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            new_debt, debt, total, place, among, scale, decay, c, *coin = args
            block = Block(context, builder, signature.args, place)
            n, factor, share = (splat(builder, scalar, _PIECE) for scalar in (among, scale, decay))

            def wish() -> Any:  # noqa: ANN401
                votes, before = block.read(total, 2), block.read(debt, 1)
                if votes.type != before.type:
                    votes = builder.sitofp(votes, before.type)
                mean = builder.fdiv(votes, n)
                return builder.fadd(builder.fmul(share, before), builder.fmul(factor, mean))

            return _owing(context, block, wish, new_debt, c, coin, past)

        kind = debt.dtype
        return types.UniTuple(types.uint64, 3)(
            new_debt, debt, total, types.intp, kind, kind, kind, kind, *_COIN
        ), codegen

    return owe_total


@intrinsic  # type: ignore[untyped-decorator]
def momentum_at(typing: Any, gradient: Any, momentum: Any, place: Any, mu: Any, rest: Any) -> Codegen:  # noqa: ANN401
    """mu momentum + rest gradient over `gradient`, on the entries from `place` on; returns which are negative."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        gradient, momentum, place, mu, rest = args
        block = Block(context, builder, signature.args, place)
        old, fresh = splat(builder, mu, _PIECE), splat(builder, rest, _PIECE)
        word = ir.Constant(WORD, 0)
        for piece in range(0, LANES, _PIECE):
            block.piece = piece
            new = builder.fadd(builder.fmul(old, block.read(momentum, 1)), builder.fmul(fresh, block.read(gradient, 0)))
            block.write(new, gradient, 0)
            negative = builder.fcmp_ordered("<", new, same(new.type, 0.0))
            bits = builder.zext(builder.bitcast(negative, ir.IntType(_PIECE)), WORD)
            word = builder.or_(word, builder.shl(bits, ir.Constant(WORD, piece)))
        return word

    kind = gradient.dtype
    return types.uint64(gradient, momentum, types.intp, kind, kind), codegen


owe_step_at, owe_step_past_caches = _step(False), _step(True)
owe_total_at, owe_total_past_caches = _total(False), _total(True)
