"""Levels of magnitudes of 128 elements at a time: their packed codes, and the sum and count of each level.

For the fractional quantizer with up to 8 levels (`cpu/fractional.py`). Its reference
is `reference.fractional.fractional_codes`: the same codes; sums are added in another order, to `MEAN_TOLERANCE`.

Most groups of 128 neighbors lie in few levels, and the work grows with the number of bounds between them. So the
minimum and maximum magnitude of each group are computed first (`magnitude_spans`), together with those of the full
vector, from which the bounds follow. Then each group is compared with three, five or all seven bounds (`level_spans`).
"""

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.packing import GROUP, narrowed, write_packed
from laconic.kernels.cpu.llvm.reductions import LANES, largest, pointer_at, reduced, smaller
from laconic.kernels.cpu.llvm.vectors import (
    U32,
    WORD,
    Codegen,
    cgutils,
    concatenated,
    has_feature,
    intrinsic,
    part,
    same,
    splat,
    types,
)

SPAN = 128  # elements of a group. At most 16 are added in one chain in their own type: 15 roundings of half a unit
ROWS = 16  # of bounds, sums and counts: a group that begins at level 7 and takes 7 bounds ends at level 14
_FEWEST = (3, 5, 7)  # bounds that a group is compared with: the first number that is enough
_LINE = 64  # bytes
_COUNTED = 3  # bytes of a word of 32 bits above its code
_BYTE = ir.IntType(8)


@intrinsic  # type: ignore[untyped-decorator]
def magnitude_spans(typing: Any, elements: Any, n: Any, mask: Any, lows: Any, highs: Any) -> Codegen:  # noqa: ANN401
    """Write the minimum and the maximum magnitude of each of n groups of SPAN elements.

    Args:
        elements: Address of the elements.
        n: Number of groups.
        mask: All bits but the sign; here and below, magnitudes are integers of its type, the bits of floats.
        lows: Address of n minimums, overwritten.
        highs: Address of n maximums, overwritten.

    Returns:
        The smallest magnitude above 0 of all groups, less 1; -1, the largest unsigned number, if there is none.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        elements, n, mask, lows, highs = args
        word, place = mask.type, n.type
        size = word.width // 8
        n_lanes = _LINE // size  # full lines: loads of half lines are reordered by LLVM, and then not prefetched
        lanes, every = ir.VectorType(word, n_lanes), splat(builder, mask, n_lanes)

        # accumulator: the smallest magnitude above 0, less 1, as unsigned lanes
        positive = cgutils.alloca_once(builder, lanes)
        builder.store(same(lanes, -1), positive)
        with cgutils.for_range(builder, n) as loop:
            start = builder.mul(loop.index, ir.Constant(place, SPAN))
            low, high, smallest = every, same(lanes, 0), builder.load(positive)
            for lane in range(0, SPAN, n_lanes):
                # lanes: bits without the sign -> minimum, maximum; minus 1, 0 wraps to the largest unsigned number
                at = builder.add(start, ir.Constant(place, lane))
                keys = builder.and_(builder.load(pointer_at(builder, elements, at, size, lanes), align=size), every)
                low = smaller(builder, keys, low)
                high = largest(builder, keys, high)
                smallest = smaller(builder, builder.sub(keys, same(lanes, 1)), smallest, signed=False)
            builder.store(smallest, positive)
            # lanes -> the group's minimum and maximum -> memory
            builder.store(reduced(builder, "smin", low), pointer_at(builder, lows, loop.index, size, word))
            builder.store(reduced(builder, "smax", high), pointer_at(builder, highs, loop.index, size, word))
        return reduced(builder, "umin", builder.load(positive))

    place = types.intp
    return mask(place, place, mask, place, place), codegen


class _Spans(ABC):
    """The loop over groups. Subclasses hold masks in their own way, from which codes and counts follow."""

    ordered: bool  # whether codes come in the elements' order, else in packed order

    def __init__(self, context: Any, builder: Any, real: Any, args: Any) -> None:  # noqa: ANN401
        self._builder, self._args = builder, args
        self._real = context.get_data_type(real)
        self._size = 4 if isinstance(self._real, ir.FloatType) else 8
        self._lanes = ir.VectorType(self._real, self._n_lanes())
        self._bits = ir.VectorType(ir.IntType(8 * self._size), self._lanes.count)
        self._prepare(args[5])

    @abstractmethod
    def _n_lanes(self) -> int:
        """Return the lanes of a vector of elements."""

    @abstractmethod
    def _prepare(self, minus: Any) -> None:  # noqa: ANN401
        """Compute what all groups use."""

    @abstractmethod
    def _elements(self, number: Any, start_level: Any, ends: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:  # noqa: ANN401
        """Emit the work on one group.

        Args:
            number: Number of the group.
            start_level: Its first level.
            ends: Lanes of each bound that the group is compared with, descending.

        Returns:
            For each level its sum, LANES lanes; for each level but the last its count; codes as vectors of bytes.
        """

    def write(self) -> None:
        builder = self._builder
        _, n, bounds, lows, highs, *_ = self._args
        lanes = ir.VectorType(self._real, LANES)
        row = builder.load(pointer_at(builder, bounds, ir.Constant(WORD, 0), 1, lanes), align=self._size)
        with cgutils.for_range(builder, n) as loop:
            # levels of the group's largest and smallest magnitude: its first and last level
            start_level, last = (
                self._level(builder.load(pointer_at(builder, ends, loop.index, self._size, self._real)), row)
                for ends in (highs, lows)
            )
            self._with_fewest(loop.index, start_level, builder.sub(last, start_level), _FEWEST)

    def _level(self, magnitude: Any, row: Any) -> Any:  # noqa: ANN401
        """Return how many of a row of bounds are not below a magnitude: its level."""
        builder = self._builder
        # lanes: magnitude <= each of 8 bounds -> 8 bits -> their number
        there = builder.fcmp_ordered("<=", splat(builder, magnitude, LANES), row)
        return builder.zext(builder.ctpop(builder.bitcast(there, ir.IntType(LANES))), WORD)

    def _with_fewest(self, number: Any, start_level: Any, spanned: Any, fewest: Sequence[int]) -> None:  # noqa: ANN401
        """Emit a group that spans so many levels, with the first number in `fewest` that is enough."""
        builder = self._builder
        if len(fewest) == 1:
            self._span(number, start_level, fewest[0])
            return
        # a branch for each number of bounds, each with code of its own
        enough = builder.icmp_signed("<=", spanned, ir.Constant(WORD, fewest[0]))
        with builder.if_else(enough) as (narrow, wide):
            with narrow:
                self._span(number, start_level, fewest[0])
            with wide:
                self._with_fewest(number, start_level, spanned, fewest[1:])

    def _span(self, number: Any, start_level: Any, n_bounds: int) -> None:  # noqa: ANN401
        """Emit a group of levels start_level .. start_level + n_bounds."""
        builder = self._builder
        _, _, bounds, *_, width, _, _, codes = self._args
        # the bounds from the group's first level on, each in all lanes
        indices = [builder.add(start_level, ir.Constant(WORD, i)) for i in range(n_bounds)]
        ends = [builder.load(pointer_at(builder, bounds, place, self._size, self._real)) for place in indices]
        totals, counts, made = self._elements(
            number, start_level, [splat(builder, end, self._lanes.count) for end in ends]
        )
        self._flush(start_level, totals, counts)
        start = builder.mul(number, ir.Constant(WORD, len(made)))
        for i, each in enumerate(made):  # last: it branches, and LLVM moves behind a branch what it can
            write_packed(builder, each, width, codes, builder.add(start, ir.Constant(WORD, i)), ordered=self.ordered)

    def _read(self, at: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Return the vector of elements from `at` on, and their magnitudes."""
        builder = self._builder
        # memory -> lanes, and the same without the sign bit
        values = builder.load(pointer_at(builder, self._args[0], at, self._size, self._lanes), align=self._size)
        rest = builder.and_(builder.bitcast(values, self._bits), same(self._bits, (1 << (8 * self._size - 1)) - 1))
        return values, builder.bitcast(rest, self._lanes)

    def _flush(self, start_level: Any, totals: list[Any], counts: list[Any]) -> None:  # noqa: ANN401
        """Add a group's sums, in float64, and its counts to those of the chunk."""
        builder = self._builder
        *_, all_sums, all_counts, _ = self._args
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        left = ir.Constant(WORD, SPAN)
        for i, total in enumerate(totals):
            # sums[level] += the group's sum as float64; counts[level] += its count, the last one what is left
            level = builder.add(start_level, ir.Constant(WORD, i))
            place = pointer_at(builder, all_sums, level, 8 * LANES, doubles)
            here = total if total.type == doubles else builder.fpext(total, doubles)
            builder.store(builder.fadd(builder.load(place, align=8), here), place, align=8)
            count = left if i == len(counts) else counts[i]
            place = pointer_at(builder, all_counts, level, 8, WORD)
            builder.store(builder.add(builder.load(place, align=8), count), place, align=8)
            left = builder.sub(left, count)


class MasksInVectors(_Spans):
    """For every processor: masks are integers in vectors of 8 lanes, and codes are narrowed as in `llvm/packing.py`."""

    ordered = False

    def _n_lanes(self) -> int:
        return LANES

    def _prepare(self, minus: Any) -> None:  # noqa: ANN401
        builder = self._builder
        self._minus = splat(builder, builder.trunc(minus, ir.IntType(16)), 2 * LANES)
        self._below = splat(builder, builder.trunc(builder.sub(minus, ir.Constant(U32, 1)), _BYTE), GROUP)
        self._buffer = cgutils.alloca_once(builder, ir.ArrayType(ir.VectorType(_BYTE, GROUP), 2 * SPAN // GROUP))

    def _elements(self, number: Any, start_level: Any, ends: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:  # noqa: ANN401
        builder = self._builder
        # accumulators: a vector of sums for each level, 0.0 at first
        totals = [cgutils.alloca_once(builder, self._lanes) for _ in range(len(ends) + 1)]
        for total in totals:
            builder.store(same(self._lanes, 0.0), total)
        buffer = builder.ptrtoint(self._buffer, WORD)
        pair = ir.VectorType(ir.IntType(16), 2 * LANES)
        pair_start = builder.mul(number, ir.Constant(WORD, SPAN // (2 * LANES)))
        with cgutils.for_range(builder, ir.Constant(WORD, SPAN // (2 * LANES))) as loop:
            # 16 elements: masks of 2 x 8 lanes -> 16 lanes of 16 bits, each mask 0 or -1
            at = builder.mul(builder.add(pair_start, loop.index), ir.Constant(WORD, 2 * LANES))
            parts = [self._part(builder.add(at, ir.Constant(WORD, i)), ends, totals) for i in (0, LANES)]
            *below, negative = (narrowed(builder, *masks) for masks in zip(*parts, strict=True))
            # lanes: sign bit + number of masks set -> code relative to the first level -> buffer
            codes = builder.and_(negative, self._minus)
            for mask in below:
                codes = builder.sub(codes, mask)
            builder.store(codes, pointer_at(builder, buffer, loop.index, 4 * LANES, pair), align=32)
        bytes_ = ir.VectorType(_BYTE, GROUP)
        offset = splat(builder, builder.trunc(start_level, _BYTE), GROUP)
        counters, made = [same(bytes_, 0)] * len(ends), []
        for i in range(SPAN // GROUP):
            # 32 codes of 16 bits -> 32 bytes, in packed order
            both = [
                builder.load(pointer_at(builder, buffer, ir.Constant(WORD, 2 * i + j), 4 * LANES, pair), align=32)
                for j in (0, 1)
            ]
            codes = narrowed(builder, *(builder.and_(each, same(pair, 255)) for each in both))
            # lanes: for each level, which codes have it -> counts in bytes, at most 4 a lane
            levels = builder.and_(codes, self._below)
            for level in range(len(ends)):
                here = builder.sext(builder.icmp_unsigned("==", levels, same(bytes_, level)), bytes_)
                counters[level] = builder.sub(counters[level], here)
            made.append(builder.add(codes, offset))
        # 32 bytes -> one count, at most 128
        counts = [builder.zext(reduced(builder, "add", counter), WORD) for counter in counters]
        return [builder.load(total) for total in totals], counts, made

    def _part(self, at: Any, ends: list[Any], totals: list[Any]) -> list[Any]:  # noqa: ANN401
        """Add 8 magnitudes to their levels' sums. Returns masks: which are not above each bound, then below zero."""
        builder = self._builder
        values, magnitudes = self._read(at)
        rest, masks = builder.bitcast(magnitudes, self._bits), []
        for end, total in zip(ends, totals, strict=False):
            # lanes: magnitude <= bound? then it belongs to a later level, else it is added here and 0 from now on
            masks.append(builder.fcmp_ordered("<=", magnitudes, end))
            further = builder.and_(rest, builder.sext(masks[-1], self._bits))
            here = builder.bitcast(builder.xor(rest, further), values.type)
            builder.store(builder.fadd(builder.load(total), here), total)
            rest = further
        builder.store(builder.fadd(builder.load(totals[-1]), builder.bitcast(rest, values.type)), totals[-1])
        # lanes: value < 0; all masks as 32 bits of 0 or -1
        masks.append(builder.fcmp_ordered("<", values, same(values.type, 0.0)))
        return [builder.sext(mask, ir.VectorType(U32, LANES)) for mask in masks]


class MasksInRegisters(_Spans):
    """For AVX-512: masks have registers of their own, and adding under a mask is one instruction.

    An element has a word as wide as itself. The lowest byte of the word becomes the code. Each of the three bytes above
    counts one bound: 1 if the element is not above that bound. So one addition counts for three bounds, and the bytes
    hold the counts of a full group. With more bounds an element has more words, whose lowest bytes add up to the code.
    """

    ordered = True

    def _n_lanes(self) -> int:
        return _LINE // self._size

    def _prepare(self, minus: Any) -> None:  # noqa: ANN401
        self._minus = self._words_of(minus)

    def _words_of(self, number: Any) -> Any:  # noqa: ANN401
        """Return an integer in every word."""
        word = self._bits.element
        if word.width > number.type.width:
            number = self._builder.zext(number, word)
        elif word.width < number.type.width:
            number = self._builder.trunc(number, word)
        return splat(self._builder, number, self._bits.count)

    def _elements(self, number: Any, start_level: Any, ends: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:  # noqa: ANN401
        builder = self._builder
        start, nothing = builder.mul(number, ir.Constant(WORD, SPAN)), same(self._bits, 0)
        offsets = [self._words_of(start_level), *([nothing] * ((len(ends) - 1) // _COUNTED))]
        counters = [nothing] * len(offsets)
        totals, made = [same(self._lanes, 0.0)] * (len(ends) + 1), []
        for lane in range(0, SPAN, self._lanes.count):
            values, magnitudes = self._read(builder.add(start, ir.Constant(WORD, lane)))
            # lanes: magnitude <= each bound -> mask registers -> sums by level
            masks = [builder.fcmp_ordered("<=", magnitudes, end) for end in ends]
            totals = self._summed(totals, magnitudes, masks, ends[0])
            # lanes: words of code and counts by the masks; counts added; sign bit into the code
            words = [
                self._stepped_by(offset, masks[_COUNTED * i : _COUNTED * (i + 1)]) for i, offset in enumerate(offsets)
            ]
            counters = [builder.add(counter, each) for counter, each in zip(counters, words, strict=True)]
            negative = builder.fcmp_ordered("<", values, same(values.type, 0.0))
            made.append(self._stepped(functools.reduce(builder.add, words), negative, self._minus))
        return [self._folded(total) for total in totals], self._counts(counters, len(ends)), self._codes(made)

    def _summed(self, totals: list[Any], magnitudes: Any, masks: list[Any], end: Any) -> list[Any]:  # noqa: ANN401
        """Return totals with magnitudes added by level; end: the first bound."""
        builder, nothing = self._builder, same(self._lanes, 0.0)
        here = [  # as LLVM leaves them: it would invert comparisons, and adding under a mask would take two steps
            builder.fcmp_ordered(">", magnitudes, end),
            *(builder.xor(mask, further) for mask, further in itertools.pairwise(masks)),
            masks[-1],
        ]
        return [
            builder.fadd(total, builder.select(mask, magnitudes, nothing), flags=["nsz"])  # adding 0 changes nothing
            for total, mask in zip(totals, here, strict=True)
        ]

    def _stepped_by(self, words: Any, masks: list[Any]) -> Any:  # noqa: ANN401
        """Return words with up to three masks counted: each in the lowest byte and in its own byte."""
        for byte, mask in enumerate(masks, 1):
            words = self._stepped(words, mask, same(self._bits, 1 + (1 << 8 * byte)))
        return words

    def _stepped(self, words: Any, mask: Any, step: Any) -> Any:  # noqa: ANN401
        """Return words plus a step where the mask is set."""
        return self._builder.add(words, self._builder.select(mask, step, same(self._bits, 0)))

    def _folded(self, total: Any) -> Any:  # noqa: ANN401
        """Return the lanes of a line as LANES lanes."""
        if total.type.count == LANES:
            return total
        return self._builder.fadd(*(part(self._builder, total, start, LANES) for start in (0, LANES)))

    def _counts(self, counters: list[Any], n_bounds: int) -> list[Any]:
        """Return the count of each level but the last, from words."""
        builder = self._builder
        counts, left = [], ir.Constant(WORD, SPAN)
        # lanes without code bytes -> one word; its bytes: elements not above each bound; counts are differences
        totals = [reduced(builder, "add", builder.lshr(counter, same(self._bits, 8))) for counter in counters]
        for i in range(n_bounds):
            which, byte = divmod(i, _COUNTED)
            word = self._bits.element
            below = builder.and_(builder.lshr(totals[which], ir.Constant(word, 8 * byte)), ir.Constant(word, 255))
            below = below if word == WORD else builder.zext(below, WORD)
            counts.append(builder.sub(left, below))
            left = below
        return counts

    def _codes(self, words: list[Any]) -> list[Any]:
        """Return the lowest bytes of words, 64 to a vector."""
        builder = self._builder
        # vectors of words -> 64 words -> their lowest bytes
        while words[0].type.count < _LINE:
            words = [concatenated(builder, *words[i : i + 2]) for i in range(0, len(words), 2)]
        return [builder.trunc(each, ir.VectorType(_BYTE, _LINE)) for each in words]


def spans_by(kind: Callable[[Any], type[_Spans]]) -> Any:  # noqa: ANN401
    """Return the intrinsic level_spans(one, elements, n, bounds, lows, highs, minus, width, sums, counts, codes).

    It writes the codes of n groups of SPAN elements, and adds to the sums and counts of their levels. `one` has the
    elements' type; `minus` is the bit of a code for values below zero, `width` its bits: 1, 2, 4 or 8. The others are
    addresses. bounds: ROWS floats, descending, -1 behind the last. lows, highs: each group's minimum and maximum
    magnitude. sums: (ROWS, LANES) float64. counts: (ROWS,) int64.

    Args:
        kind: Takes numba's target context, returns the subclass of `_Spans` to use.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def spans(
        typing: Any, one: Any, elements: Any, n: Any, bounds: Any, lows: Any, highs: Any, minus: Any, width: Any,  # noqa: ANN401
        sums: Any, counts: Any, codes: Any,  # noqa: ANN401
    ) -> Codegen:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            kind(context)(context, builder, one, args[1:]).write()
            return context.get_dummy_value()

        place = types.intp
        return types.none(one, place, place, place, place, place, types.uint32, place, place, place, place), codegen

    return spans


level_spans = spans_by(lambda context: MasksInRegisters if has_feature(context, "avx512bw") else MasksInVectors)
