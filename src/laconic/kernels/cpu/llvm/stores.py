"""Stores past the caches: for vectors that leave the caches anyway before they are read again.

An ordinary store first reads the line that it overwrites, and evicts another one. A kernel writes a tile to a buffer in
the first-level cache, and copies it from there.
"""

from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.vectors import U32, Codegen, cgutils, intrinsic, types

LINE = 64  # bytes, which are stored together


@intrinsic  # type: ignore[untyped-decorator]
def store_lines(typing: Any, out: Any, buffer: Any, n: Any) -> Codegen:  # noqa: ANN401
    """Copy n lines of 64 bytes past the caches.

    Args:
        out: Address to copy to, a multiple of 64.
        buffer: Address to copy from.
        n: Number of lines.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        # a line as 8 words of 64 bits: memory -> lanes -> memory, the store marked as nontemporal
        to, start, count = args
        line, kind = ir.VectorType(ir.IntType(64), LINE // 8), count.type
        mark = builder.module.add_metadata([ir.Constant(U32, 1)])
        with cgutils.for_range(builder, count) as loop:
            at = builder.mul(loop.index, ir.Constant(kind, LINE))
            lanes = builder.load(builder.inttoptr(builder.add(start, at), line.as_pointer()), align=8)
            store = builder.store(lanes, builder.inttoptr(builder.add(to, at), line.as_pointer()), align=LINE)
            store.set_metadata("nontemporal", mark)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, types.intp), codegen
