"""Thirty-two codes from lanes of 32 bits to packed bytes, in the order in which registers of 256 bits are packed.

There four codes of each of four vectors take turns, so that narrowing is one instruction; the order is put right last,
when least is left to move. Processors of other widths get the same result. Codes that are narrowed in another way, and
in order from the start, are packed here too.
"""

from typing import Any

from llvmlite import ir

from laconic.kernels.cpu_words import U32, same

GROUP = 32  # codes; whole bytes, whatever their width
_UNITS = (0, 4, 1, 5, 2, 6, 3, 7)  # where each four codes in turn are, among the units of four of packed order
PAIRS_IN_ORDER = [16 * pair + start + i for pair in (0, 1) for start in (0, 8, 4, 12) for i in range(4)]
_BYTE = ir.IntType(8)


def narrowed(builder: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """The low halves of two vectors of eight lanes of 32, or of sixteen of 16 bits, as one, in packed order."""
    n, half = one.type.count, one.type.count // 2
    halves = ir.VectorType(ir.IntType(one.type.element.width // 2), 2 * n)
    places = [2 * (n * vector + first + i) for first in (0, half) for vector in (0, 1) for i in range(half)]
    order = ir.Constant(ir.VectorType(U32, 2 * n), places)
    return builder.shuffle_vector(builder.bitcast(one, halves), builder.bitcast(other, halves), order)


def in_order(builder: Any, codes: Any, unit: int = 4) -> Any:  # noqa: ANN401
    """A vector in packed order, of which `unit` elements hold four codes, in the order of the entries."""
    places = [unit * place + i for place in _UNITS for i in range(unit)]
    order = ir.Constant(ir.VectorType(U32, codes.type.count), places)
    return builder.shuffle_vector(codes, ir.Constant(codes.type, ir.Undefined), order)


def write_packed(builder: Any, codes: Any, width: Any, address: Any, number: Any, *, ordered: bool = False) -> None:  # noqa: ANN401
    """Write a group's codes, bytes in packed order, in 1, 2, 4 or 8 bits each, `number` groups behind an address.

    ordered: they are in the order of the entries, and a group is as many as there are.
    """
    end = builder.append_basic_block("packed")
    switch = builder.switch(width, end)
    for known in (1, 2, 4, 8):
        block = builder.append_basic_block("width")
        switch.add_case(ir.Constant(width.type, known), block)
        builder.position_at_end(block)
        write_group(builder, _packed(builder, codes, known, ordered=ordered), address, number)
        builder.branch(end)
    builder.position_at_end(end)


def write_group(builder: Any, made: Any, address: Any, number: Any) -> None:  # noqa: ANN401
    """Write what a group became, `number` groups behind an address."""
    kind = made.type
    size = kind.width // 8 if isinstance(kind, ir.IntType) else kind.count * kind.element.width // 8
    place = builder.add(address, builder.mul(number, ir.Constant(number.type, size)))
    builder.store(made, builder.inttoptr(place, kind.as_pointer()), align=1)


def _packed(builder: Any, codes: Any, width: int, *, ordered: bool) -> Any:  # noqa: ANN401
    """Codes of `width` bits as one value."""

    def put_right(codes: Any, unit: int = 4) -> Any:  # noqa: ANN401
        return codes if ordered else in_order(builder, codes, unit)

    n_codes = codes.type.count
    if width == 8:
        return put_right(codes)
    if width == 1:
        codes = put_right(codes)
        return builder.bitcast(builder.icmp_unsigned("!=", codes, same(codes.type, 0)), ir.IntType(n_codes))
    n = 8 // width
    words = builder.bitcast(codes, ir.VectorType(ir.IntType(8 * n), n_codes // n))
    shift, left = 8 - width, n
    while left > 1:
        words = builder.or_(words, builder.lshr(words, same(words.type, shift)))
        shift, left = 2 * shift, left // 2
    return put_right(builder.trunc(words, ir.VectorType(_BYTE, n_codes // n)), 4 // n)
