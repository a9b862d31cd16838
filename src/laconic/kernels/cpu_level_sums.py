"""Levels of magnitudes, their sums and counts, and packed codes, of 128 entries at once; see plain_fractional.

Most groups of 128 neighbours lie in few levels, and the work grows with the number of bounds between them. So the
smallest and the largest magnitude of each group come first, with the range of the whole vector, and then a group is
compared with three bounds, or with all seven where its own range spans more.
"""

from typing import Any

from llvmlite import ir

from laconic.kernels.cpu_extremes import LANES, largest, least, pointer_at, reduced
from laconic.kernels.cpu_packing import GROUP, narrowed, write_packed
from laconic.kernels.cpu_words import U32, WORD, Codegen, cgutils, intrinsic, same, splat, types

SPAN = 128  # entries of a group. Of each lane 16 are added up in the values' type: 15 roundings of half a unit
ROWS = 16  # room for bounds, sums and counts: those of levels from 7 + 3 on are never there
_FEW, _ALL = 3, 7  # bounds
_LINE = 64  # bytes
_BYTE = ir.IntType(8)


@intrinsic  # type: ignore[untyped-decorator]
def magnitude_spans(typing: Any, entries: Any, n: Any, mask: Any, lows: Any, highs: Any) -> Codegen:  # noqa: ANN401
    """The smallest and the largest magnitude of each of n groups of SPAN entries; the smallest but 0 of all, less 1.

    All are addresses of integers of mask's type, the bits of floats; mask: all bits but the sign. Returned is an
    integer of that type; 0 less 1 is the largest number without a sign, that is -1.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        entries, n, mask, lows, highs = args
        word, place = mask.type, n.type
        size = word.width // 8
        n_lanes = _LINE // size  # of half lines LLVM mixes up the loads, and then processors do not read ahead
        lanes, every = ir.VectorType(word, n_lanes), splat(builder, mask, n_lanes)

        positive = cgutils.alloca_once(builder, lanes)
        builder.store(same(lanes, -1), positive)
        with cgutils.for_range(builder, n) as loop:
            start = builder.mul(loop.index, ir.Constant(place, SPAN))
            low, high, smallest = every, same(lanes, 0), builder.load(positive)
            for piece in range(0, SPAN, n_lanes):
                at = builder.add(start, ir.Constant(place, piece))
                keys = builder.and_(builder.load(pointer_at(builder, entries, at, size, lanes), align=size), every)
                low = least(builder, keys, low)
                high = largest(builder, keys, high)
                smallest = least(builder, builder.sub(keys, same(lanes, 1)), smallest, signed=False)
            builder.store(smallest, positive)
            builder.store(reduced(builder, "smin", low), pointer_at(builder, lows, loop.index, size, word))
            builder.store(reduced(builder, "smax", high), pointer_at(builder, highs, loop.index, size, word))
        return reduced(builder, "umin", builder.load(positive))

    place = types.intp
    return mask(place, place, mask, place, place), codegen


class _Spans:
    def __init__(self, context: Any, builder: Any, real: Any, args: Any) -> None:  # noqa: ANN401
        self._builder, self._args = builder, args
        self._real = context.get_data_type(real)
        self._size = 4 if isinstance(self._real, ir.FloatType) else 8
        self._lanes = ir.VectorType(self._real, LANES)
        self._words = ir.VectorType(U32, LANES)

    def write(self) -> None:
        builder = self._builder
        _, n, bounds, lows, highs, minus, *_ = self._args
        self._minus = splat(builder, builder.trunc(minus, ir.IntType(16)), 2 * LANES)
        self._below = splat(builder, builder.trunc(builder.sub(minus, ir.Constant(U32, 1)), _BYTE), GROUP)
        self._room = cgutils.alloca_once(builder, ir.ArrayType(ir.VectorType(_BYTE, GROUP), 2 * SPAN // GROUP))
        row = builder.load(pointer_at(builder, bounds, ir.Constant(n.type, 0), 1, self._lanes), align=self._size)
        with cgutils.for_range(builder, n) as loop:
            first, last = (
                self._level(builder.load(pointer_at(builder, ends, loop.index, self._size, self._real)), row)
                for ends in (highs, lows)
            )
            few = builder.icmp_signed("<=", builder.sub(last, first), ir.Constant(n.type, _FEW))
            with builder.if_else(few) as (narrow, wide):
                with narrow:
                    self._span(loop.index, first, _FEW)
                with wide:
                    self._span(loop.index, ir.Constant(n.type, 0), _ALL)

    def _level(self, magnitude: Any, row: Any) -> Any:  # noqa: ANN401
        """How many of a row of bounds are not below a magnitude."""
        builder = self._builder
        there = builder.fcmp_ordered("<=", splat(builder, magnitude, LANES), row)
        return builder.zext(builder.ctpop(builder.bitcast(there, ir.IntType(LANES))), WORD)

    def _span(self, number: Any, first: Any, n_bounds: int) -> None:  # noqa: ANN401
        """A group whose levels are first .. first + n_bounds."""
        builder = self._builder
        _, n, bounds, _, _, _, width, _, _, codes = self._args
        places = [builder.add(first, ir.Constant(n.type, i)) for i in range(n_bounds)]
        ends = [builder.load(pointer_at(builder, bounds, place, self._size, self._real)) for place in places]
        ends = [splat(builder, end, LANES) for end in ends]
        totals = [cgutils.alloca_once(builder, self._lanes) for _ in range(n_bounds + 1)]
        for total in totals:
            builder.store(same(self._lanes, 0.0), total)
        bytes_ = ir.VectorType(_BYTE, GROUP)
        room = builder.ptrtoint(self._room, n.type)
        offset = splat(builder, builder.trunc(first, _BYTE), GROUP)
        start = builder.mul(number, ir.Constant(n.type, SPAN // GROUP))
        pair = ir.VectorType(ir.IntType(16), 2 * LANES)
        halves = builder.mul(number, ir.Constant(n.type, SPAN // (2 * LANES)))
        with cgutils.for_range(builder, ir.Constant(n.type, SPAN // (2 * LANES))) as loop:
            at = builder.mul(builder.add(halves, loop.index), ir.Constant(n.type, 2 * LANES))
            pieces = [self._piece(builder.add(at, ir.Constant(n.type, i)), ends, totals) for i in (0, LANES)]
            *below, negative = (narrowed(builder, *masks) for masks in zip(*pieces, strict=True))
            codes_ = builder.and_(negative, self._minus)
            for mask in below:
                codes_ = builder.sub(codes_, mask)
            builder.store(codes_, pointer_at(builder, room, loop.index, 4 * LANES, pair), align=32)
        tallies = [same(bytes_, 0)] * n_bounds
        for i in range(SPAN // GROUP):
            both = [
                builder.load(pointer_at(builder, room, ir.Constant(n.type, 2 * i + j), 4 * LANES, pair), align=32)
                for j in (0, 1)
            ]
            made = narrowed(builder, *(builder.and_(each, same(pair, 255)) for each in both))
            levels = builder.and_(made, self._below)
            for level in range(n_bounds):
                here = builder.sext(builder.icmp_unsigned("==", levels, same(bytes_, level)), bytes_)
                tallies[level] = builder.sub(tallies[level], here)
            write_packed(builder, builder.add(made, offset), width, codes, builder.add(start, ir.Constant(n.type, i)))
        self._flush(first, totals, tallies)

    def _piece(self, at: Any, ends: list[Any], totals: list[Any]) -> list[Any]:  # noqa: ANN401
        """Which of some entries are not above each of the bounds, and which are below zero: masks of 32 bits.

        Adds the magnitudes up by level.
        """
        builder = self._builder
        values = builder.load(pointer_at(builder, self._args[0], at, self._size, self._lanes), align=self._size)
        bits = ir.VectorType(ir.IntType(8 * self._size), LANES)
        rest = builder.and_(builder.bitcast(values, bits), same(bits, (1 << (8 * self._size - 1)) - 1))
        magnitudes = builder.bitcast(rest, values.type)
        masks = []
        for end, total in zip(ends, totals, strict=False):
            masks.append(builder.fcmp_ordered("<=", magnitudes, end))
            further = builder.and_(rest, builder.sext(masks[-1], bits))
            here = builder.bitcast(builder.xor(rest, further), values.type)
            builder.store(builder.fadd(builder.load(total), here), total)
            rest = further
        builder.store(builder.fadd(builder.load(totals[-1]), builder.bitcast(rest, values.type)), totals[-1])
        masks.append(builder.fcmp_ordered("<", values, same(values.type, 0.0)))
        return [builder.sext(mask, self._words) for mask in masks]

    def _flush(self, first: Any, totals: list[Any], tallies: list[Any]) -> None:  # noqa: ANN401
        """Sums of a group, in float64, and its counts to those of the chunk."""
        builder = self._builder
        *_, sums, counts, _ = self._args
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        for i, total in enumerate(totals):
            level = builder.add(first, ir.Constant(first.type, i))
            place = pointer_at(builder, sums, level, 8 * LANES, doubles)
            here = builder.load(total)
            here = here if here.type == doubles else builder.fpext(here, doubles)
            builder.store(builder.fadd(builder.load(place, align=8), here), place, align=8)
        left = ir.Constant(WORD, SPAN)
        for i in range(len(totals)):
            count = left if i == len(tallies) else builder.zext(reduced(builder, "add", tallies[i]), WORD)
            place = pointer_at(builder, counts, builder.add(first, ir.Constant(first.type, i)), 8, WORD)
            builder.store(builder.add(builder.load(place, align=8), count), place, align=8)
            left = builder.sub(left, count)


@intrinsic  # type: ignore[untyped-decorator]
def level_spans(
    typing: Any, one: Any, entries: Any, n: Any, bounds: Any, lows: Any, highs: Any, minus: Any, width: Any,  # noqa: ANN401
    sums: Any, counts: Any, codes: Any,  # noqa: ANN401
) -> Codegen:  # fmt: skip
    """Codes of n groups of SPAN entries at the address `codes`; adds to the sums and counts of their levels.

    All but `one`, of the entries' type, `minus` and `width` are addresses. bounds: ROWS floats, descending, -1 behind
    the last one. lows, highs: each group's smallest and largest magnitude. minus: the bit of a code that says below
    zero. width: of a code there, 1, 2, 4 or 8. sums: (ROWS, LANES) float64; counts: (ROWS,) int64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        _Spans(context, builder, one, args[1:]).write()
        return context.get_dummy_value()

    place = types.intp
    return types.none(one, place, place, place, place, place, types.uint32, place, place, place, place), codegen
