"""The inputs of one worker to a round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from laconic.kernels.api import gather_distance, squared_distance
from laconic.protocol.abort import Abort
from laconic.torch_compat import version_of
from laconic.wire import Ends


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

    def share_plus(self, out: Tensor, divisor: int, plus: Tensor) -> None:
        """Write all elements, each divided by `divisor`, plus those of `plus` (d,), to `out` (d,)."""

    def largest_into(self, out: Tensor) -> float:
        """Write all elements to `out` (d,), and return the largest magnitude; NaN if it has one."""

    def measured_into(self, out: Tensor, start: int, stop: int) -> tuple[float, int]:
        """Do the same with elements start .. stop-1 alone, and return the CRC-32 of their bytes, too."""

    def updated_into(self, out: Tensor) -> tuple[float, int] | None:
        """Write a change plus the parameters that it was made from to `out` (d,); return what `measured_into` does.

        None where the source does not know them: then nothing is written.
        """

    def difference_into(
        self, out: Tensor, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float]
    ) -> tuple[float, Ends] | None:
        """Write the `mixed_difference` of what `updated_into` writes, without that; return its largest, and the ends.

        None where the source does not do so: then nothing is written.
        """

    def scaled(self) -> tuple[Sequence[Tensor], Sequence[float]] | None:
        """Return consecutive tensors and a factor of each, whose products are the vector; None if it is another."""

    def tensors(self) -> Sequence[Tensor]:
        """Return the vector as consecutive tensors, of d elements in all. Empty if it has to be computed."""


class SharedVector:
    """A vector (d,) that several workers of this process read in one round: it is written once. A `VectorSource`.

    A worker that changes it in place owns it from then on, and the next worker gets a new one.
    """

    def __init__(self, source: VectorSource, empty: Callable[[], Tensor]) -> None:
        """`source` is read when a worker asks for the vector; `empty` returns a vector (d,) with any content."""
        self.reads, self.into, self.tensors = source.reads, source.into, source.tensors
        self.share_plus = source.share_plus
        self.largest_into, self.measured_into = source.largest_into, source.measured_into
        self.scaled, self.updated_into = source.scaled, source.updated_into
        self.difference_into = source.difference_into
        self._empty = empty
        self._vector: Tensor | None = None
        self._version = 0
        self._from: tuple[Tensor, float] | None = None  # a vector, and the squared distance from it

    def vector(self) -> Tensor:
        """Return the vector, (d,)."""
        if self._vector is None or version_of(self._vector) != self._version:
            vector = self._empty()
            self.into(vector, 0, vector.numel())
            self._keep(vector)
            return vector
        return self._vector

    def vector_and_distance(self, other: Tensor) -> tuple[Tensor, float]:
        """Return the same, and its squared distance from `other` (d,), which is not computed again for one vector."""
        if self._from is None or self._from[0] is not other:
            vector, tensors = self._empty(), self.tensors()
            if tensors:
                distance = gather_distance(tensors, other, vector)
            else:
                self.into(vector, 0, vector.numel())
                distance = squared_distance([vector], [other])
            if self._vector is None:
                self._keep(vector)
            self._from = other, distance
        return self.vector(), self._from[1]

    def _keep(self, vector: Tensor) -> None:
        self._vector, self._version = vector, version_of(vector)


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
