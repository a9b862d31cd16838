"""What one worker brings to a round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from laconic.errors import NonFiniteError
from laconic.kernels.api import all_finite


@dataclass(kw_only=True)
class Inputs:
    """The vector that the method consumes, and where the worker stands.

    `fill` and `write_change` put off the writing of `vector`, which holds anything until then. Both tell whether no
    entry written is inf or NaN; `fill`, where it divides, what `kernels.gather` tells.
    """

    # gradient or change, (d,); given away: the method may overwrite or keep it. Empty with `gradient_tensors`
    vector: Tensor
    gradient_tensors: Sequence[
        Tensor
    ] = ()  # the gradient as it lies, one behind the other, for a method that takes it so
    parameters: Callable[[], Tensor]  # (d,), at the start of the round
    lr: float
    gradient_at: Callable[[Tensor], Tensor] | None = None
    abort: bool = False  # this rank cannot take part: nobody shall
    fill: Callable[[int, int, int], bool] | None = None  # a gradient between two places, divided by a number
    write_change: Callable[[Tensor | None], bool] | None = None  # a change, plus another vector where there is one

    def change(self, plus: Tensor | None) -> Tensor:
        """The change, plus another vector (d,) where there is one; once a round. Raises NonFiniteError."""
        write, self.write_change = self.write_change, None
        if write is None:
            write = self._add
        if not write(plus):
            raise NonFiniteError
        return self.vector

    def _add(self, plus: Tensor | None) -> bool:
        return plus is None or all_finite(self.vector.add_(plus))
