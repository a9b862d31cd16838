"""What codes stand for, compiled: loops over the codes of one block, which other kernels call tile by tile.

Reference: `reference.stochastic_rounding.values_of_codes`, the same bits. Loops run over slices of one type from 0 on,
which numba turns into vector instructions. Nearly all blocks are even: in them a product and a sum give each point but
the last, and the loops of others, with comparisons and a factor, take twice as long.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import int32
from numpy.typing import NDArray

from laconic.kernels.cpu.compile import inlined, kernel

Array = NDArray[Any]


class Grid(NamedTuple):
    """The grid of a block, scalars of the ends' type but for `top`."""

    bottom: Any
    """The low end, times a factor that keeps numbers in range: `reference.stochastic_rounding.range_factors`."""
    step: Any
    """From point to point, times that factor."""
    unfactor: Any
    """One over the factor."""
    high: Any
    """The high end, which the last code stands for."""
    top: Any
    """int32, the last code."""
    is_even: bool
    """Whether point i is i step + bottom for all but the last, without a factor, and none of them above the high."""


@kernel
def factor_of(low: Any, high: Any, numbers: Array) -> Any:  # noqa: ANN401 - numba's own scalars
    """Return `reference.stochastic_rounding.range_factors` of one block."""
    span = high - low
    if not np.isfinite(span):
        return numbers[3]
    return numbers[5] if numbers[1] < span < numbers[4] else numbers[2]


@kernel
def grid_of(low: Any, high: Any, numbers: Array, top: Any) -> Grid:  # noqa: ANN401
    """Return the grid between two ends; `numbers` are `stochastic_rounding.constants`, `top` the last code, int32."""
    one, factor = numbers[2], factor_of(low, high, numbers)
    bottom = low * factor
    step = (high * factor - bottom) / numbers[0]
    # points ascend with codes; above the last but one, only the last may be beyond the high end
    is_even = factor == one and step >= numbers[1] and (numbers[0] - one) * step + bottom <= high
    return Grid(bottom, step, one / factor, high, top, is_even)


@inlined
def point(code: Any, grid: Any) -> Any:  # noqa: ANN401
    """Return the grid point of a code without a sign, int32."""
    found = (type(grid.high)(code) * grid.step + grid.bottom) * grid.unfactor
    return (found if (found < grid.high) & (code != grid.top) else grid.high) + type(grid.high)(0)  # -0.0 becomes 0.0


@inlined
def even_point(code: Any, grid: Any) -> Any:  # noqa: ANN401
    """Return the same for an even grid."""
    found = type(grid.high)(code) * grid.step + grid.bottom  # never -0.0: the product is not
    return found if code != grid.top else grid.high + type(grid.high)(0)


@kernel
def put(codes: Array, grid: Grid, out: Array) -> None:
    """Write the points of codes without a sign."""
    if grid.is_even:
        for i in range(codes.size):
            out[i] = even_point(int32(codes[i]), grid)
    else:
        for i in range(codes.size):
            out[i] = point(int32(codes[i]), grid)


@kernel
def add(codes: Array, grid: Grid, out: Array, sign: Any) -> None:  # noqa: ANN401
    """Add them times `sign`, 1 or -1 of their type."""
    if grid.is_even:
        for i in range(codes.size):
            out[i] += sign * even_point(int32(codes[i]), grid)
    else:
        for i in range(codes.size):
            out[i] += sign * point(int32(codes[i]), grid)


@kernel
def add_scaled(codes: Array, grid: Grid, out: Array, factor: Any) -> None:  # noqa: ANN401
    """Add them, and multiply the sum by `factor` of their type."""
    if grid.is_even:
        for i in range(codes.size):
            out[i] = (out[i] + even_point(int32(codes[i]), grid)) * factor
    else:
        for i in range(codes.size):
            out[i] = (out[i] + point(int32(codes[i]), grid)) * factor


@kernel
def put_sum(base: Array, codes: Array, grid: Grid, out: Array) -> None:
    """Write them plus the elements of `base`, (n,) like `codes`."""
    if grid.is_even:
        for i in range(codes.size):
            out[i] = base[i] + even_point(int32(codes[i]), grid)
    else:
        for i in range(codes.size):
            out[i] = base[i] + point(int32(codes[i]), grid)


@kernel
def put_signed(codes: Array, grid: Grid, minus: Any, out: Array) -> None:  # noqa: ANN401
    """Write the points of codes of which the bit `minus`, int32, is the sign."""
    for i in range(codes.size):
        out[i] = _signed(int32(codes[i]), grid, minus)


@kernel
def add_signed(codes: Array, grid: Grid, minus: Any, out: Array, sign: Any) -> None:  # noqa: ANN401
    """Add them times `sign`, 1 or -1 of their type."""
    for i in range(codes.size):
        out[i] += sign * _signed(int32(codes[i]), grid, minus)


@inlined
def _signed(code: Any, grid: Any, minus: Any) -> Any:  # noqa: ANN401
    found = point(int32(code & int32(minus - int32(1))), grid)
    return -found if code >= minus else found
