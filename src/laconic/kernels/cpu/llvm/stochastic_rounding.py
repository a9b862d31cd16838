"""Stochastic rounding of 32 elements at a time: from floats to packed codes without leaving the registers.

For the quantizers of `cpu/stochastic_rounding.py`, whose loops over blocks call `draw_groups`. Reference:
`reference.stochastic_rounding.quantize` and `quantize_levels`, the same bits.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.packing import GROUP, PAIRS_IN_ORDER, narrowed, write_group, write_packed
from laconic.kernels.cpu.llvm.vectors import (
    U32,
    Codegen,
    cgutils,
    concatenated,
    hashes,
    intrinsic,
    register_lanes,
    same,
    splat,
    types,
)
from laconic.kernels.reference.hashing import FACTOR_1, FACTOR_2
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS

SEGMENT = 1 << 16  # coordinates that differ in the lower 16 bits only


def _grid_positions(builder: Any, values: Any, scale: tuple[Any, ...], words: Any) -> Any:  # noqa: ANN401
    """Return `reference.stochastic_rounding.grid_positions` of values, lane by lane.

    Args:
        values: Lanes of floats.
        scale: Three vectors: 0 - low end, which is added, so that the value can come from memory in the same
            instruction; codes per unit of the values; the last code. These two are in units of 2**-FRACTION_BITS.
        words: Type of the result, lanes of 32 bits.
    """
    # lanes: (value - low end) * step, between 0 and the last code, NaN -> 0, then rounded down to int32
    raised, step, top = scale
    place = builder.fmul(builder.fadd(values, raised), step)
    place = _called(builder, "maxnum", place, same(values.type, 0.0))  # 0 for NaN
    return builder.fptosi(_called(builder, "minnum", place, top, "nnan"), words)


def _called(builder: Any, name: str, one: Any, other: Any, *flags: str) -> Any:  # noqa: ANN401
    """Return llvm.maxnum or minnum of two vectors: one instruction, where comparing and selecting may stay two."""
    # llvm.maxnum or llvm.minnum of two vectors, by name
    lanes = one.type
    name = f"llvm.{name}.v{lanes.count}f{32 if isinstance(lanes.element, ir.FloatType) else 64}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(lanes, [lanes, lanes]), name)
    return builder.call(function, [one, other], fastmath=flags)


class _Hashes:
    """Hashes 32 coordinates at a time, faster where the first one is a multiple of 32.

    For a coordinate c + i with c a multiple of 32 and i < 32, hash32's first product is (k ^ c ^ i) * factor, where
    k = low ^ (c ^ low) >> 16 is the same for 2**16 neighbors. That is the sum of ((k ^ c) & ~31) * factor, the same for
    all 32, and ((k & 31) ^ i) * factor, which a table of 32 rows holds.
    """

    def __init__(self, builder: Any, coordinate: Any, low: Any, high: Any, n_lanes: int) -> None:  # noqa: ANN401
        self._builder, self._low, self._n_lanes = builder, low, n_lanes
        self._high = splat(builder, high, n_lanes)
        # constant table: row k, lane i is (k ^ i) * factor modulo 2**32
        rows = ir.VectorType(U32, GROUP)
        table = [ir.Constant(rows, [(k ^ i) * FACTOR_1 & 0xFFFFFFFF for i in range(GROUP)]) for k in range(GROUP)]
        table = cgutils.global_constant(builder.module, "laconic.hashes", ir.Constant(ir.ArrayType(rows, GROUP), table))
        # k of the class's docstring; its low five bits choose the table's row, the others stay in self._mixed
        mixed = builder.xor(low, builder.lshr(builder.xor(coordinate, low), ir.Constant(U32, 16)))
        row = builder.and_(mixed, ir.Constant(U32, GROUP - 1))
        self._mixed = builder.xor(mixed, row)
        self._row = builder.bitcast(builder.gep(table, [ir.Constant(U32, 0), row]), self._high.type.as_pointer())

    def group(self, coordinate: Any) -> list[Any]:  # noqa: ANN401
        """Return lanes of the hashes of the 32 coordinates from `coordinate` on, which is a multiple of 32."""
        builder = self._builder
        # the product's common part, one multiplication for 32 coordinates
        product = builder.mul(builder.xor(coordinate, self._mixed), ir.Constant(U32, FACTOR_1))
        product = splat(builder, product, self._n_lanes)
        lanes = product.type
        found = []
        for lane in range(GROUP // self._n_lanes):
            # lanes: common part + table row, then the rest of hash32
            x = builder.load(builder.gep(self._row, [ir.Constant(U32, lane)]), align=4)
            x = builder.add(product, x)
            x = builder.add(builder.xor(x, builder.lshr(x, same(lanes, 15))), self._high)
            x = builder.mul(x, same(lanes, FACTOR_2))
            found.append(builder.xor(x, builder.lshr(x, same(lanes, 16))))
        return found

    def anywhere(self, coordinate: Any) -> list[Any]:  # noqa: ANN401
        """Return the same from any coordinate on, without the table."""
        builder, n = self._builder, self._n_lanes
        # lanes: hash32 of coordinate + 0 .. 31, a register at a time
        offset, low = splat(builder, coordinate, n), splat(builder, self._low, n)
        parts = [list(range(lane, lane + n)) for lane in range(0, GROUP, n)]
        return [hashes(builder, builder.add(offset, ir.Constant(offset.type, lane)), low, self._high) for lane in parts]


class _Groups:
    """Loops over groups of 32 elements at an address: one loop for signed codes and one for others."""

    def __init__(self, context: Any, builder: Any, real: Any, args: Any) -> None:  # noqa: ANN401
        self._builder = builder
        self._values, self._n, self._coordinate, low, high, *scale, self._minus, self._width, self._codes = args
        self._n_lanes = register_lanes(context)  # so that comparing and selecting become one instruction
        self._hashes = _Hashes(builder, self._coordinate, low, high, self._n_lanes)
        self._real = context.get_data_type(real)
        # scalars -> lanes, once; addresses of one number for each element stay scalars
        self._scale = [each if each.type == self._n.type else splat(builder, each, self._n_lanes) for each in scale]

    def write(self) -> None:
        """Emit four loops, hashes with and without the table times codes with and without a sign, and choose one."""
        builder = self._builder
        # branches: is the first coordinate a multiple of 32, are codes signed; one loop in each
        rest = builder.and_(self._coordinate, ir.Constant(U32, GROUP - 1))
        aligned = builder.icmp_unsigned("==", rest, ir.Constant(U32, 0))
        signed = builder.icmp_unsigned("!=", self._minus, ir.Constant(U32, 0))
        with builder.if_else(aligned) as (by_table, by_hash):
            for entered, hashed in ((by_table, self._hashes.group), (by_hash, self._hashes.anywhere)):
                with entered, builder.if_else(signed) as (minus, no_minus):
                    with minus:
                        self._loop(hashed, splat(builder, self._minus, self._n_lanes))
                    with no_minus:
                        self._loop(hashed, None)

    def _loop(self, hashed: Callable[[Any], list[Any]], minus: Any) -> None:  # noqa: ANN401
        """Emit one loop over all groups.

        Args:
            hashed: Takes a coordinate and returns the lanes of the hashes of 32 coordinates.
            minus: Lanes of the sign bit of a code, or None for codes without a sign.
        """
        builder = self._builder
        kind = self._n.type
        with cgutils.for_range(builder, self._n) as loop:
            # hashes of the group's 32 coordinates, then 32 elements -> 32 codes, lanes of 32 bits
            start = builder.mul(loop.index, ir.Constant(kind, GROUP))
            words = hashed(builder.add(self._coordinate, builder.trunc(start, U32)))
            parts = [
                self._codes_of(builder.add(start, ir.Constant(kind, self._n_lanes * i)), words[i], minus)
                for i in range(len(words))
            ]
            if len(parts) == 2:
                self._write_in_order(parts, loop.index)
            else:
                self._write_pairs(parts, loop.index)

    def _write_in_order(self, parts: list[Any], number: Any) -> None:  # noqa: ANN401
        """Write the codes of a group from 2 x 16 lanes of 32 bits: AVX-512 narrows them by one instruction, in order.

        Args:
            parts: The lanes.
            number: Number of the group.
        """
        builder = self._builder
        wide = builder.icmp_signed("==", self._width, ir.Constant(self._width.type, 16))
        with builder.if_else(wide) as (two_bytes, one_byte):
            with two_bytes:
                # low 16 bits of 2 x 16 lanes -> memory
                write_group(builder, self._low_bits(parts, 16), self._codes, number)
            with one_byte:
                # low 8 bits of 2 x 16 lanes -> packed to `width` bits -> memory
                write_packed(builder, self._low_bits(parts, 8), self._width, self._codes, number, ordered=True)

    def _low_bits(self, parts: list[Any], bits: int) -> Any:  # noqa: ANN401
        """Return two vectors as one, with the low bits of each lane."""
        # lanes of 32 bits -> lanes of `bits` bits (AVX-512: vpmovdw, vpmovdb)
        narrow = ir.VectorType(ir.IntType(bits), self._n_lanes)
        return concatenated(self._builder, *(self._builder.trunc(part, narrow) for part in parts))

    def _write_pairs(self, parts: list[Any], number: Any) -> None:  # noqa: ANN401
        """Write the codes of a group from 4 x 8 lanes of 32 bits. Arguments as for `_write_in_order`."""
        builder = self._builder
        # 4 x 8 lanes of 32 bits -> 2 x 16 lanes of 16 bits, in packed order
        pairs = [narrowed(builder, *parts[i : i + 2]) for i in (0, 2)]
        wide = builder.icmp_signed("==", self._width, ir.Constant(self._width.type, 16))
        with builder.if_else(wide) as (two_bytes, one_byte):
            with two_bytes:
                # codes of 16 bits: into the order of the elements -> memory
                order = ir.Constant(ir.VectorType(U32, GROUP), PAIRS_IN_ORDER)
                write_group(builder, builder.shuffle_vector(*pairs, order), self._codes, number)
            with one_byte:
                # codes of at most 8 bits: 2 x 16 lanes -> 32 bytes -> packed to `width` bits -> memory
                low = same(pairs[0].type, 255)
                codes = narrowed(builder, *(builder.and_(pair, low) for pair in pairs))
                write_packed(builder, codes, self._width, self._codes, number)

    def _codes_of(self, at: Any, hashed: Any, minus: Any) -> Any:  # noqa: ANN401
        """Return the codes of one register of elements from `at` on, lanes of 32 bits."""
        builder, words = self._builder, hashed.type
        # memory -> lanes of floats, and which are below zero; with signed codes their magnitudes
        values = self._loaded(self._values, at)
        lanes = values.type
        scale = tuple(self._loaded(each, at) if each.type == self._n.type else each for each in self._scale)
        negative = builder.fcmp_ordered("<", values, same(lanes, 0.0))
        sizes = values if minus is None else builder.select(negative, builder.fneg(values), values)
        # lanes: fixed-point place + random fraction (the top bits of the hash), rounded down -> codes
        place = _grid_positions(builder, sizes, scale, words)
        sampled = builder.lshr(hashed, same(words, 32 - FRACTION_BITS))
        levels = builder.lshr(builder.add(place, sampled), same(words, FRACTION_BITS))
        if minus is None:
            return levels
        # lanes: the sign bit of levels below zero; level 0 never has it
        signed = builder.and_(negative, builder.icmp_unsigned("!=", levels, same(words, 0)))
        return builder.or_(levels, builder.select(signed, minus, same(words, 0)))

    def _loaded(self, address: Any, at: Any) -> Any:  # noqa: ANN401
        """Return one register of floats from element `at` on."""
        builder, size = self._builder, 4 if isinstance(self._real, ir.FloatType) else 8
        # address + at * size -> lanes of floats
        place = builder.add(address, builder.mul(at, ir.Constant(at.type, size)))
        pointer = builder.inttoptr(place, ir.VectorType(self._real, self._n_lanes).as_pointer())
        return builder.load(pointer, align=size)


@intrinsic  # type: ignore[untyped-decorator]
def draw_groups(
    typing: Any, elements: Any, n: Any, coordinate: Any, low: Any, high: Any, raised: Any, step: Any, top: Any,  # noqa: ANN401
    minus: Any, width: Any, codes: Any,  # noqa: ANN401
) -> Codegen:  # fmt: skip
    """Write the packed codes of n groups of 32 elements.

    From a first coordinate that is a multiple of 32 on, no group may be beyond the next multiple of SEGMENT.

    Args:
        elements: Address of the elements, floats of the type of `top`.
        n: Number of groups.
        coordinate: uint32, number of the first coordinate.
        low: uint32, the low half of the mixed key.
        high: uint32, the high half of the mixed key.
        raised: 0 - low end of the block; or the address of one such number for each element.
        step: Codes per unit of the values, in units of 2**-FRACTION_BITS of a code; or an address, as for `raised`.
        top: The last code, in the same units.
        minus: uint32, the bit of a code that marks values below zero; 0 for codes without a sign.
        width: Bits of a code in memory: 1, 2, 4, 8 or 16.
        codes: Address of the codes.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        _Groups(context, builder, top, args).write()
        return context.get_dummy_value()

    place, u32 = types.intp, types.uint32
    kinds = [place if isinstance(each, types.Integer) else top for each in (raised, step)]
    return types.none(place, place, u32, u32, u32, *kinds, top, u32, place, place), codegen
