"""Sum of squares of a run of elements.

For block norms (`cpu/block_norms.py`); its helpers serve `llvm/level_sums.py` too. Reference:
`reference.stochastic_rounding.norms`. Squares are added in another order than there, and agree to the tolerance that
`norms` states.

A run is read in four chains of 8 lanes. Each chain has an accumulator of its own, so that no operation waits for the
one before it.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from laconic.kernels.cpu.llvm.vectors import Codegen, cgutils, intrinsic, same, splat, types

LANES = 8
_CHAINS = 4
RUN = _CHAINS * LANES  # elements read at a time

Fold = Callable[[Any, Any], Any]


def pointer_at(builder: Any, address: Any, index: Any, size: int, kind: Any) -> Any:  # noqa: ANN401
    """Return a pointer to a value of type `kind`, `index` * `size` bytes behind an address."""
    # address + index * size -> pointer
    place = builder.add(address, builder.mul(index, ir.Constant(address.type, size)))
    return builder.inttoptr(place, kind.as_pointer())


def reduced(builder: Any, name: str, lanes: Any, *start: Any) -> Any:  # noqa: ANN401
    """Return llvm.vector.reduce of lanes.

    Args:
        name: "add", "smin", "smax", "umin" for integers, "fadd" for float64.
        lanes: A vector.
        *start: For "fadd" the scalar to which lanes are added, one after another in their order.
    """
    # lanes -> one scalar; the intrinsic's name has the number and type of the lanes in it
    kind = lanes.type
    letter = "i" if isinstance(kind.element, ir.IntType) else "f"
    width = kind.element.width if letter == "i" else 64
    name = f"llvm.vector.reduce.{name}.v{kind.count}{letter}{width}"
    types_ = [*(each.type for each in start), kind]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind.element, types_), name)
    return builder.call(function, [*start, lanes])


def smaller(builder: Any, one: Any, other: Any, *, signed: bool = True) -> Any:  # noqa: ANN401
    """Return the minimum of two vectors, lane by lane."""
    # lanes: one < other ? one : other (one instruction, pminsd or pminud)
    compare = builder.icmp_signed if signed else builder.icmp_unsigned
    return builder.select(compare("<", one, other), one, other)


def largest(builder: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """Return the maximum of two vectors of signed integers, lane by lane."""
    # lanes: one > other ? one : other
    return builder.select(builder.icmp_signed(">", one, other), one, other)


class _Run:
    """A loop over n * RUN elements at an address, with accumulators in each chain."""

    def __init__(self, builder: Any, elements: Any, n: Any, kind: Any) -> None:  # noqa: ANN401
        self._builder, self._elements, self._n = builder, elements, n
        self._lanes = ir.VectorType(kind, LANES)
        self._size = {"float": 4, "double": 8}.get(str(kind)) or kind.width // 8

    def fold(self, starts: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[list[Any]]:
        """Emit the loop.

        Args:
            starts: First value of each accumulator, as lanes.
            step: Takes 8 elements and the accumulators of one chain, returns the accumulators.

        Returns:
            The last values: for each accumulator one vector a chain.
        """
        builder = self._builder
        # accumulators: stack variables, which LLVM turns into registers
        carried = [[cgutils.alloca_once(builder, start.type) for _ in range(_CHAINS)] for start in starts]
        for start, chains in zip(starts, carried, strict=True):
            for chain in chains:
                builder.store(start, chain)
        with cgutils.for_range(builder, self._n) as loop:
            for chain in range(_CHAINS):
                # element loop.index * RUN + chain * LANES: memory -> 8 lanes
                at = builder.add(
                    builder.mul(loop.index, ir.Constant(self._n.type, RUN)), ir.Constant(self._n.type, chain * LANES)
                )
                elements = builder.load(
                    pointer_at(builder, self._elements, at, self._size, self._lanes), align=self._size
                )
                # this chain's accumulators -> step -> back
                mine = [chains[chain] for chains in carried]
                for slot, value in zip(mine, step(elements, [builder.load(slot) for slot in mine]), strict=True):
                    builder.store(value, slot)
        return [[builder.load(chain) for chain in chains] for chains in carried]

    def joined(self, chains: list[Any], fold: Fold) -> Any:  # noqa: ANN401
        """Return the four chains of one accumulator as one vector, joined two by two."""
        # tree: (0, 1), (2, 3), then both
        while len(chains) > 1:
            chains = [fold(chains[i], chains[i + 1]) for i in range(0, len(chains), 2)]
        return chains[0]


@intrinsic  # type: ignore[untyped-decorator]
def run_squares(typing: Any, elements: Any, n: Any, factor: Any) -> Codegen:  # noqa: ANN401
    """Return the sum of (value * factor)**2 over n * RUN elements of factor's type at an address, added in float64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        elements, n, factor = args
        run, factors = _Run(builder, elements, n, factor.type), splat(builder, factor, LANES)
        doubles = ir.VectorType(ir.DoubleType(), LANES)

        def step(values: Any, carried: list[Any]) -> list[Any]:  # noqa: ANN401
            # lanes: value * factor in the values' type, widened to float64, squared, added
            values = builder.fmul(values, factors)
            exact = values if values.type == doubles else builder.fpext(values, doubles)
            return [builder.fadd(carried[0], builder.fmul(exact, exact))]

        # 4 x 8 lanes -> 8 lanes -> one float64, added from 0.0 in the order of the lanes
        (sums,) = run.fold([same(doubles, 0.0)], step)
        return reduced(builder, "fadd", run.joined(sums, builder.fadd), ir.Constant(ir.DoubleType(), 0.0))

    return types.float64(types.intp, types.intp, factor), codegen
