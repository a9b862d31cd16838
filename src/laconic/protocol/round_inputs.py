"""The inputs of one worker to a round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from laconic.protocol.abort import Abort


class VectorSource(Protocol):
    """Where a vector (d,) is read from, such as a model's gradient tensors. Nothing is copied before it is read."""

    reads: Sequence[Tensor]
    """The tensors whose memory it reads."""

    def into(
        self,
        out: Tensor,
        start: int,
        stop: int,
        *,
        divisor: int = 1,
        plus: Tensor | Sequence[Tensor] | None = None,
        limit: float | None = None,
    ) -> bool:
        """Write elements start .. stop-1, plus those of `plus`, divided by `divisor`, to the same place in `out`.

        Args:
            out: the vector to write to, (d,).
            start: index of the first element to write.
            stop: index behind the last one.
            divisor: the divisor.
            plus: a vector to add, (d,), or consecutive tensors of d elements in all, if any.
            limit: the magnitude to look for, with neither divisor nor `plus`.

        Returns:
            Whether all values written are finite, or with a limit, within it. With a divisor, whether the sum of that
            many such vectors is finite as well, as `kernels.divide` says.
        """

    def largest_into(self, out: Tensor) -> float:
        """Write all elements to `out` (d,), and return the largest magnitude; NaN if it has one."""

    def scaled(self) -> tuple[Sequence[Tensor], Sequence[float]] | None:
        """Return consecutive tensors and a factor of each, whose products are the vector; None if it is another."""

    def tensors(self) -> Sequence[Tensor]:
        """Return the vector as consecutive tensors, of d elements in all. Empty if it has to be computed."""


class Active(Protocol):
    """The parameters that take part in a round: the memories keep what they hold for the others."""

    all_active: bool
    """Whether all parameters take part."""

    def inactive(self) -> Sequence[tuple[int, int]]:
        """Return the slices (offset, stop) of the full vector that take no part. Known when the round is committed."""

    def select(self, used: Sequence[bool]) -> None:
        """Let the parameters behind one gradient take part; called before an asynchronous server applies it."""


@dataclass(kw_only=True)
class Inputs:
    """The vector that the method consumes, and the parameters."""

    vector: Tensor | VectorSource
    """The gradient or change, (d,), or where to read it. The method may overwrite or keep a tensor."""
    parameters: Tensor | VectorSource
    """The parameters at the start of the round, (d,), or where to read them."""
    gradient_at: Callable[[Tensor], Tensor | VectorSource] | None = None
    """Returns the gradient of the same mini-batch at other parameters, both (d,), or where to read it."""
    used: Sequence[bool] = ()
    """By parameter tensor, whether this worker has used it since the last exchange; read by asynchronous drivers."""
    abort: Abort = Abort.NO
    """Why this rank cannot take part, so that the round has to be aborted."""
