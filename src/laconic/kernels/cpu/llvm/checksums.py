"""Blocks of 256 bytes on their way to memory, or just read: the largest magnitude in them, and their CRC-32 folded.

For `cpu/checksums.py`; reference: `reference/checksums.py`. A multiplication without carry takes 128 bits of a message
to the place of the next ones, so that what is folded has the checksum of all before it (Gopal et al.: Fast CRC
Computation for Generic Polynomials Using PCLMULQDQ Instruction, Intel, 2009). 16 such are under way at once: then the
pass takes the time of its reads and stores.
"""

from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.reductions import largest, reduced
from laconic.kernels.cpu.llvm.stores import LINE
from laconic.kernels.cpu.llvm.vectors import U32, WORD, Codegen, cgutils, has_feature, intrinsic, same, types
from laconic.kernels.reference.checksums import power_of_x

BLOCK_BYTES = 256
_REGISTER_BYTES = 32
_AHEAD_BYTES = 1 << 12  # a processor itself looks as far as its instructions under way, here a few blocks
_CHAINS = BLOCK_BYTES // _REGISTER_BYTES
_BYTE = ir.IntType(8)
_QUADS = ir.VectorType(WORD, 4)


def _factor(n_bits: int) -> int:
    """Return x**n_bits modulo the polynomial as an instruction takes it: the lowest bit is the highest power."""
    return power_of_x(n_bits) << 1


# of the lower and the upper 64 bits of 128: one block on, and 32 bits that the multiplication shifts by itself
_FACTORS = [_factor(8 * BLOCK_BYTES + 32), _factor(8 * BLOCK_BYTES - 32)]


def can_fold(context: Any) -> bool:  # noqa: ANN401
    """Return whether the processor that numba compiles for multiplies without carry, as `pass_blocks` does."""
    return has_feature(context, "pclmul")


def _product(context: Any, builder: Any, folded: Any, upper: int) -> Any:  # noqa: ANN401
    """Return the products of the lower 64 bits of each 128, or of the upper ones, with their factor."""
    selector = ir.Constant(_BYTE, 0x11 * upper)
    if has_feature(context, "vpclmulqdq"):
        # two products of 64 bits each: one instruction
        kind = ir.FunctionType(_QUADS, [_QUADS, _QUADS, _BYTE])
        multiply = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.pclmulqdq.256")
        return builder.call(multiply, [folded, ir.Constant(_QUADS, _FACTORS * 2), selector])
    # one product an instruction: 128 bits out of 256, and back
    pair, undefined = ir.VectorType(WORD, 2), ir.Constant(_QUADS, ir.Undefined)
    kind = ir.FunctionType(pair, [pair, pair, _BYTE])
    multiply = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.pclmulqdq")
    one, other = (
        builder.call(
            multiply,
            [
                builder.shuffle_vector(folded, undefined, ir.Constant(ir.VectorType(ir.IntType(32), 2), [at, at + 1])),
                ir.Constant(pair, _FACTORS),
                selector,
            ],
        )
        for at in (0, 2)
    )
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 1, 2, 3]))


@intrinsic  # type: ignore[untyped-decorator]
def pass_blocks(typing: Any, source: Any, target: Any, n: Any, mask: Any, folded: Any, past: Any) -> Codegen:  # noqa: ANN401
    """Copy n blocks of floats, or only read them; return the largest of their bits without the sign, of mask's type.

    Args:
        source: Address of the blocks, uint64.
        target: Address to copy them to; None to copy nothing.
        n: Number of blocks.
        mask: All bits but the sign: int32 for float32, int64 for float64.
        folded: (32,) uint64, the blocks before, folded into one; changed to that of these too. None for no checksum.
        past: 1 to store past the caches, where `target` is a multiple of 64; None for ordinary stores.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        source, target, n, mask, folded, _ = args
        copies, folds, past_caches = (not isinstance(signature.args[i], types.NoneType) for i in (1, 4, 5))
        folds = folds and can_fold(context)
        width = mask.type.width
        lanes = ir.VectorType(mask.type, 8 * _REGISTER_BYTES // width)
        all_but_sign = same(lanes, (1 << width - 1) - 1)
        read, written = (builder.inttoptr(each, _BYTE.as_pointer()) for each in (source, target if copies else source))
        found = [_variable(builder, same(lanes, 0)) for _ in range(_CHAINS // 2)]
        chains = []
        if folds:
            array = context.make_array(signature.args[4])(context, builder, folded).data
            pointers = [_at(builder, builder.bitcast(array, _BYTE.as_pointer()), number) for number in range(_CHAINS)]
            chains = [_variable(builder, builder.load(place, align=8)) for place in pointers]
        with cgutils.for_range(builder, n) as loop:
            start = builder.mul(loop.index, ir.Constant(loop.index.type, BLOCK_BYTES))
            here, there = builder.gep(read, [start]), builder.gep(written, [start])
            # what is read soon -> caches
            for at in range(_AHEAD_BYTES, _AHEAD_BYTES + BLOCK_BYTES, LINE):
                _fetch(builder, builder.gep(here, [ir.Constant(WORD, at)]))
            for number in range(_CHAINS):
                # memory -> 32 bytes -> memory
                quads = builder.load(_at(builder, here, number), align=width // 8)
                if copies:
                    align = _REGISTER_BYTES if past_caches else width // 8
                    store = builder.store(quads, _at(builder, there, number), align=align)
                    if past_caches:
                        one = ir.Constant(ir.IntType(32), 1)
                        store.set_metadata("nontemporal", builder.module.add_metadata([one]))
                # lanes: magnitudes, the larger of two
                slot = found[number % len(found)]
                magnitudes = builder.and_(builder.bitcast(quads, lanes), all_but_sign)
                builder.store(largest(builder, magnitudes, builder.load(slot)), slot)
                if folds:
                    # what was before, one block on, and these
                    before = builder.load(chains[number])
                    one, other = (_product(context, builder, before, upper) for upper in (0, 1))
                    builder.store(builder.xor(builder.xor(one, other), quads), chains[number])
        for number, chain in enumerate(chains):
            builder.store(builder.load(chain), pointers[number], align=8)
        one, *others = (builder.load(slot) for slot in found)
        for other in others:
            one = largest(builder, one, other)
        return reduced(builder, "smax", one)

    return mask(types.uint64, target, types.intp, mask, folded, past), codegen


def _fetch(builder: Any, pointer: Any) -> None:  # noqa: ANN401
    """Bring the line at a pointer (i8*) to the caches; where there is no memory, nothing happens."""
    # address -> cache line: to read, at all levels, of data
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, U32, U32, U32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(prefetch, [pointer, *(ir.Constant(U32, each) for each in (0, 3, 1))])


def _variable(builder: Any, value: Any) -> Any:  # noqa: ANN401
    """Return a stack variable with a value, which LLVM turns into a register."""
    slot = cgutils.alloca_once(builder, value.type)
    builder.store(value, slot)
    return slot


def _at(builder: Any, start: Any, number: int) -> Any:  # noqa: ANN401
    """Return a pointer to the 32 bytes of a number, behind an address."""
    place = builder.gep(start, [ir.Constant(WORD, _REGISTER_BYTES * number)])
    return builder.bitcast(place, _QUADS.as_pointer())
