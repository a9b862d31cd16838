"""Packing 32 codes from lanes of 32 bits into bytes, 1, 2, 4, 8 or 16 bits a code.

For stochastic rounding (`llvm/stochastic_rounding.py`) and the fractional quantizer (`llvm/level_sums.py`). Reference:
`reference.fractional.pack_codes`, the same bits.

Registers of 256 bits narrow two vectors by one instruction, but within halves of 128 bits: units of four codes of both
vectors alternate. That order is called packed order here. It stays while codes get narrower, and is undone last, when
the fewest bytes are left to move. Processors of other widths give the same result, with more instructions. Codes that
were narrowed in order are packed here too (`ordered`).
"""

from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.vectors import U32, same

GROUP = 32  # codes; full bytes, whatever their width
_UNITS = (0, 4, 1, 5, 2, 6, 3, 7)  # in packed order, unit u of four codes is at _UNITS[u]
PAIRS_IN_ORDER = [16 * pair + start + i for pair in (0, 1) for start in (0, 8, 4, 12) for i in range(4)]
_BYTE = ir.IntType(8)


def narrowed(builder: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """Return the low halves of the lanes of two vectors as one vector, in packed order.

    Args:
        one: 8 lanes of 32 bits, or 16 of 16 bits.
        other: The same type; the elements behind those of `one`.

    Returns:
        Twice as many lanes of half the width.
    """
    # lanes: low halves of one[:half], other[:half], one[half:], other[half:] (x86: vpackusdw, vpackuswb)
    n, middle = one.type.count, one.type.count // 2
    narrow = ir.VectorType(ir.IntType(one.type.element.width // 2), 2 * n)
    lanes = [2 * (n * vector + base + i) for base in (0, middle) for vector in (0, 1) for i in range(middle)]
    order = ir.Constant(ir.VectorType(U32, 2 * n), lanes)
    return builder.shuffle_vector(builder.bitcast(one, narrow), builder.bitcast(other, narrow), order)


def in_order(builder: Any, codes: Any, unit: int = 4) -> Any:  # noqa: ANN401
    """Move the codes of a vector from packed order to the order of the elements.

    Args:
        codes: 32 codes in packed order, in lanes of any width.
        unit: Lanes that hold four codes.
    """
    # lanes: unit u from where packed order has it, for u = 0 .. 7
    lanes = [unit * place + i for place in _UNITS for i in range(unit)]
    order = ir.Constant(ir.VectorType(U32, codes.type.count), lanes)
    return builder.shuffle_vector(codes, ir.Constant(codes.type, ir.Undefined), order)


def write_packed(builder: Any, codes: Any, width: Any, address: Any, number: Any, *, ordered: bool = False) -> None:  # noqa: ANN401
    """Pack one group of codes and write it to memory.

    Args:
        codes: Lanes of 8 bits, a code each, in packed order.
        width: Bits of a code: 1, 2, 4 or 8, known at run time only.
        address: Where group 0 begins.
        number: Number of the group.
        ordered: The codes are in the order of the elements, and a group is as many codes as there are lanes.
    """
    # a branch for each width; each packs by constants and writes its own number of bytes
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
    """Write a vector or integer to memory, `number` times its own size behind `address`."""
    # lanes -> memory at address + number * size; byte streams promise no alignment
    kind = made.type
    size = kind.width // 8 if isinstance(kind, ir.IntType) else kind.count * kind.element.width // 8
    place = builder.add(address, builder.mul(number, ir.Constant(number.type, size)))
    builder.store(made, builder.inttoptr(place, kind.as_pointer()), align=1)


def _packed(builder: Any, codes: Any, width: int, *, ordered: bool) -> Any:  # noqa: ANN401
    """Return codes, lanes of 8 bits, as one value of `width` bits a code."""

    def put_right(codes: Any, unit: int = 4) -> Any:  # noqa: ANN401
        """Move codes to the order of the elements, unless they are in it already."""
        return codes if ordered else in_order(builder, codes, unit)

    # width 8: the lanes are the bytes already
    n_codes = codes.type.count
    if width == 8:
        return put_right(codes)
    # width 1: lanes != 0 -> one bit a lane
    if width == 1:
        codes = put_right(codes)
        return builder.bitcast(builder.icmp_unsigned("!=", codes, same(codes.type, 0)), ir.IntType(n_codes))
    # widths 2 and 4: n neighboring bytes as one word of 8 n bits; folding the word in half, its upper part
    # shifted down by all but `width` bits, leaves the n codes in its lowest byte
    n = 8 // width
    words = builder.bitcast(codes, ir.VectorType(ir.IntType(8 * n), n_codes // n))
    shift, left = 8 - width, n
    while left > 1:
        words = builder.or_(words, builder.lshr(words, same(words.type, shift)))
        shift, left = 2 * shift, left // 2
    return put_right(builder.trunc(words, ir.VectorType(_BYTE, n_codes // n)), 4 // n)
