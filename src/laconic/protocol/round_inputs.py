"""The inputs of one worker to a round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from laconic.errors import NonFiniteError
from laconic.kernels.api import all_finite


@dataclass(kw_only=True)
class Inputs:
    """The vector that the method consumes, and the parameters.

    `fill` and `write_change` write `vector` later; until then its values are undefined. Both return whether all values
    written are finite; if `fill` divides, it returns what `kernels.gather` does.
    """

    vector: Tensor
    """The gradient or change, (d,). The method may overwrite or keep it. Empty if `gradient_tensors` is given."""
    gradient_tensors: Sequence[Tensor] = ()
    """The gradient as consecutive tensors of d elements in all, for a method that takes it in that form."""
    parameters: Callable[[], Tensor]
    """Returns the parameters (d,) at the start of the round."""
    gradient_at: Callable[[Tensor], Tensor] | None = None
    abort: bool = False
    """Whether this rank cannot take part, so that the round has to be aborted."""
    fill: Callable[[int, int, int], bool] | None = None
    """`fill(start, stop, divisor)` writes that slice of the gradient, divided by `divisor`."""
    write_change: Callable[[Tensor | None], bool] | None = None
    """`write_change(plus)` writes the change, plus another vector (d,) if one is given."""

    def change(self, plus: Tensor | None) -> Tensor:
        """Return the change, plus another vector (d,) if one is given. Call once a round. Raises NonFiniteError."""
        write, self.write_change = self.write_change, None
        if write is None:
            write = self._add
        if not write(plus):
            raise NonFiniteError
        return self.vector

    def _add(self, plus: Tensor | None) -> bool:
        return plus is None or all_finite(self.vector.add_(plus))
