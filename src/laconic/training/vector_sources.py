"""Where a vector is read from, uncopied until then: tensors as they are, scaled, or less an earlier vector.

They implement `VectorSource` of `protocol/round_inputs.py`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from laconic.kernels.api import (
    CheckedTensors,
    absolute_maximum,
    all_finite,
    divide,
    gather,
    gather_change,
    gather_largest,
    gather_scaled,
    gather_step,
    gather_with_checksum,
    largest_and_checksum,
    slice_tensors,
    step_difference,
)

Plus = Tensor | Sequence[Tensor] | None
"""What is added to a vector: another one, or tensors of as many elements in all."""


@dataclass(eq=False)
class _Source(ABC):
    """Tensors of d elements in all, from which a vector (d,) is read. It implements `VectorSource`."""

    reads: Sequence[Tensor]

    def into(
        self,
        out: Tensor,
        start: int,
        stop: int,
        *,
        divisor: int = 1,
        plus: Plus = None,
        limit: float | None = None,
    ) -> bool:
        """See `VectorSource`."""
        place = slice(start, stop)
        if stop - start == out.shape[0]:
            part, added, tensors = out, plus, self.reads
        else:
            part, tensors = out[place], slice_tensors(self.reads, start, stop)
            added = plus[place] if isinstance(plus, Tensor) else plus and slice_tensors(plus, start, stop)
        if limit is not None:
            return self._write_within(part, tensors, place, limit)
        if divisor == 1:
            return self._write(part, tensors, place, added)
        return self._write_share(part, tensors, place, divisor, added)

    def share_plus(self, out: Tensor, divisor: int, plus: Tensor) -> None:
        """See `VectorSource`."""
        self.into(out, 0, out.numel(), divisor=divisor)
        out.add_(plus)

    def largest_into(self, out: Tensor) -> float:
        """See `VectorSource`."""
        self._write(out, self.reads, slice(0, out.numel()), None)
        return absolute_maximum(out)

    def measured_into(self, out: Tensor, start: int, stop: int) -> tuple[float, int]:
        """See `VectorSource`."""
        part, place = out[start:stop], slice(start, stop)
        self._write(part, slice_tensors(self.reads, start, stop), place, None)
        return largest_and_checksum(part)

    @abstractmethod
    def _write(self, part: Tensor, tensors: Sequence[Tensor], place: slice, plus: Plus) -> bool:
        """Write elements of the vector, plus `plus`, to `part`. Returns whether all are finite.

        Args:
            part: where to write, of as many elements.
            tensors: what `reads` has at `place`.
            place: indices of the vector (d,).
            plus: what to add, as long as `part` in all.
        """

    def _write_within(self, part: Tensor, tensors: Sequence[Tensor], place: slice, limit: float) -> bool:
        """Write them to `part`. Returns whether no magnitude is above the limit."""
        return self._write(part, tensors, place, None) and absolute_maximum(part) <= limit

    def _write_share(self, part: Tensor, tensors: Sequence[Tensor], place: slice, divisor: int, plus: Plus) -> bool:
        """Write them, plus `plus`, divided by `divisor` to `part`. Returns what `kernels.divide` does."""
        self._write(part, tensors, place, plus)
        return divide(part, divisor)

    def scaled(self) -> tuple[Sequence[Tensor], Sequence[float]] | None:
        """See `VectorSource`."""
        return None

    def updated_into(self, out: Tensor) -> tuple[float, int] | None:
        """See `VectorSource`."""
        return None

    def difference_into(
        self, out: Tensor, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float]
    ) -> tuple[float, tuple[Tensor, Tensor]] | None:
        """See `VectorSource`."""
        return None

    def tensors(self) -> Sequence[Tensor]:
        """See `VectorSource`."""
        return ()


class VectorCopy(_Source):
    """The tensors as they are."""

    def share_plus(self, out: Tensor, divisor: int, plus: Tensor) -> None:
        """See `VectorSource`."""
        if divisor & (divisor - 1):
            super().share_plus(out, divisor, plus)
        else:  # the inverse of a power of two is exact, so that a product has the bits of the quotient
            gather_scaled(self.reads, [1 / divisor] * len(self.reads), out, plus)

    def largest_into(self, out: Tensor) -> float:
        """See `VectorSource`."""
        return gather_largest(self.reads, out)

    def measured_into(self, out: Tensor, start: int, stop: int) -> tuple[float, int]:
        """See `VectorSource`."""
        return gather_with_checksum(slice_tensors(self.reads, start, stop), out[start:stop])

    def tensors(self) -> Sequence[Tensor]:
        """See `VectorSource`."""
        self.reads = CheckedTensors.of(self.reads)  # a method has several kernels read them
        return self.reads

    def _write(self, part: Tensor, tensors: Sequence[Tensor], place: slice, plus: Plus) -> bool:
        finite = gather(tensors, part)
        return finite if plus is None else all_finite(_add(part, plus))

    def _write_within(self, part: Tensor, tensors: Sequence[Tensor], place: slice, limit: float) -> bool:
        return gather(tensors, part, limit=limit)

    def _write_share(self, part: Tensor, tensors: Sequence[Tensor], place: slice, divisor: int, plus: Plus) -> bool:
        if plus is None:
            return gather(tensors, part, divisor=divisor)
        return super()._write_share(part, tensors, place, divisor, plus)


class Unscaled(_Source):
    """The tensors divided by one number, such as gradients of a loss that was multiplied by it."""

    def __init__(self, tensors: Sequence[Tensor], scale: Tensor) -> None:
        super().__init__(tensors)
        self._scale = scale

    def _write(self, part: Tensor, tensors: Sequence[Tensor], place: slice, plus: Plus) -> bool:
        gather(tensors, part)
        part /= self._scale
        return all_finite(part if plus is None else _add(part, plus))


class ChangeSince(_Source):
    """The difference between tensors and an earlier vector."""

    def __init__(self, tensors: Sequence[Tensor], start: Tensor, divisor: Tensor | None) -> None:
        """`start` (d,) is subtracted; `divisor` is one number or (d,), or None to divide by nothing."""
        super().__init__(tensors)
        self._start = start
        self._divisor = divisor

    def _write(self, part: Tensor, tensors: Sequence[Tensor], place: slice, plus: Plus) -> bool:
        subtracted, divisor = self._start[place], self._divisor
        if divisor is None and (plus is None or isinstance(plus, Tensor)):
            return gather_change(tensors, subtracted, part, plus)
        gather_change(tensors, subtracted, part)
        if divisor is not None:
            part /= divisor[place] if divisor.dim() else divisor
        return all_finite(part if plus is None else _add(part, plus))


class ChangeOfStep(_Source):
    """Tensors, each multiplied by a factor of its own."""

    def __init__(self, tensors: Sequence[Tensor], factors: Sequence[float]) -> None:
        super().__init__(tensors)
        self._factors = factors

    def scaled(self) -> tuple[Sequence[Tensor], Sequence[float]] | None:
        """See `VectorSource`."""
        return self.reads, self._factors

    def _write(self, part: Tensor, tensors: Sequence[Tensor], place: slice, plus: Plus) -> bool:
        return gather_scaled(tensors, self._factors_of(tensors, place), part, plus)

    def _write_share(self, part: Tensor, tensors: Sequence[Tensor], place: slice, divisor: int, plus: Plus) -> bool:
        return gather_scaled(tensors, self._factors_of(tensors, place), part, plus, divisor=divisor)

    def _factors_of(self, tensors: Sequence[Tensor], place: slice) -> Sequence[float]:
        """Return the factors of the tensors, which are those at these indices, the outer ones perhaps in part."""
        return (
            self._factors if len(tensors) == len(self._factors) else factors_between(self.reads, self._factors, place)
        )


class ChangeByStep(_Source):
    """What a step of plain SGD that is not taken would change: to the bits of taking it, and subtracting."""

    def __init__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], factors: Sequence[float]) -> None:
        """`factors`: by tensor, the learning rate times -1."""
        super().__init__(gradients)
        self._parameters, self._factors = parameters, factors

    def updated_into(self, out: Tensor) -> tuple[float, int] | None:
        """See `VectorSource`."""
        return gather_step(self._parameters, self.reads, self._factors, out, adds=True)

    def difference_into(
        self, out: Tensor, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float]
    ) -> tuple[float, tuple[Tensor, Tensor]] | None:
        """See `VectorSource`."""
        return step_difference(self._parameters, self.reads, self._factors, published, copies, weights, out)

    def _write(self, part: Tensor, tensors: Sequence[Tensor], place: slice, plus: Plus) -> bool:
        parameters, factors = self._parameters, self._factors
        if place.stop - place.start < sum(map(Tensor.numel, self.reads)):
            parameters = slice_tensors(parameters, place.start, place.stop)
            factors = factors_between(self.reads, factors, place)
        largest, _ = gather_step(parameters, tensors, factors, part, adds=False)
        return math.isfinite(largest) if plus is None else all_finite(_add(part, plus))


def factors_between(tensors: Sequence[Tensor], factors: Sequence[float], place: slice) -> list[float]:
    """Return the factors of those tensors that have elements at these indices of the vector that all make."""
    found, at = [], 0
    for tensor, factor in zip(tensors, factors, strict=True):
        if max(at, place.start) < min(at + tensor.numel(), place.stop):
            found.append(factor)
        at += tensor.numel()
    return found


def _add(part: Tensor, plus: Tensor | Sequence[Tensor]) -> Tensor:
    """Add a vector, or tensors of as many elements in all, to `part`, in place."""
    if isinstance(plus, Tensor):
        return part.add_(plus)
    for one, more in zip(part.split_with_sizes([tensor.numel() for tensor in plus]), plus, strict=True):
        one.add_(more.reshape(-1))
    return part
