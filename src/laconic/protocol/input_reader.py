"""How a worker's gradient or change gets to its method: it is written once, and no earlier than it is needed."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor

from laconic.contract import Algorithm, Worker
from laconic.kernels.api import (
    Guesses,
    absolute_maximum,
    all_finite,
    divide,
    gather_distance,
    gather_top_k,
    mixed_difference,
    squared_distance,
    take_at,
    top_k,
)
from laconic.protocol.abort import Abort
from laconic.protocol.round_inputs import Inputs, SharedVector, VectorSource
from laconic.wire import Ends


class InputReader:
    """Sets what a method reads of its worker, from the inputs of each round."""

    def __init__(self, algorithm: Algorithm, me: Worker) -> None:
        self._algorithm = algorithm
        self._me = me
        self.unread: VectorSource | None = None
        """Where to read the gradient or change, until it is read."""
        self.exceeds = False
        """Whether the gradient or change of this round has a magnitude above the limit."""
        self._limit: float | None = None
        self._bounds: Sequence[int] = ()
        self._plus: Tensor | Sequence[Tensor] | None = None  # what `write_share` adds to what is unread
        self._share: Abort | None = None  # what `write_share` returns, if the full share is already written

    def begin(
        self, inputs: Inputs, *, sum_is_checked: bool, as_given: bool, overlaps: bool, limit: float | None = None,
        bounds: Sequence[int] = (),
    ) -> Abort:  # fmt: skip
        """Start a round.

        Args:
            inputs: what the worker brings to the round.
            sum_is_checked: whether inf and NaN are found in the sum over all workers.
            as_given: whether that is the sum of the gradients, or of the updated parameters, unchanged.
            overlaps: whether `write_share` is called while the gradient still exists.
            limit: the magnitude to look for, see `exceeds`; None to look for none.
            bounds: where the parts begin in which a packet has the values of a gradient, and the end of the last; none
                if it has others, or does not leave this rank.

        Returns:
            Whether inf or NaN was found.
        """
        self._bounds = bounds
        self._limit, self.exceeds, self._plus = limit, False, None
        me, vector, gradient_at, self._share = self._me, inputs.vector, inputs.gradient_at, None
        me.largest_gradient = me.largest_updated = me.updated_checksum = None
        me.read_change_and_largest, me.read_scaled_change = self._read_change_and_largest, self._read_scaled_change
        me.read_parameters = partial(self._vector, inputs.parameters)
        me.read_parameters_from = partial(self._vector_and_distance, inputs.parameters)
        if gradient_at is not None:
            me.gradient_at = lambda parameters: self._vector(gradient_at(parameters))
            me.gradient_tensors_at = lambda parameters: self._tensors(gradient_at(parameters))
        waits = sum_is_checked and as_given and overlaps and not isinstance(vector, Tensor)
        me.read_updated = partial(self._read_updated, inputs.parameters, waits=waits)
        me.read_difference = self._read_difference
        if isinstance(vector, Tensor):
            return Abort.unless(self._take(vector) or sum_is_checked or self._is_finite(vector))
        if self._algorithm.consumes == "change":
            self.unread, me.read_change = vector, self._read_change
            return Abort.NO  # it is checked when it is read
        return self._read_gradient(vector, sum_is_checked, sum_is_checked and as_given, overlaps)

    def _take(self, vector: Tensor) -> bool:
        """Give the method a gradient or change (d,) that is already written. Returns whether it checks it itself."""
        if self._algorithm.consumes == "change":
            self._me.read_change = partial(self._with_sum, vector)
            return False
        self._me.gradient = vector
        self._me.gradient_tensors = [vector] if self._algorithm.takes_gradient_tensors else ()
        return self._algorithm.takes_gradient_tensors

    def _with_sum(self, vector: Tensor, plus: Tensor | None) -> Tensor:
        self._me.require(plus is None or self._is_finite(vector.add_(plus)))
        return vector

    def _read_gradient(self, source: VectorSource, sum_is_checked: bool, is_summed: bool, overlaps: bool) -> Abort:
        me = self._me
        me.gradient_tensors = source.tensors() if self._algorithm.takes_gradient_tensors else ()
        if me.gradient_tensors:
            return Abort.NO  # the method checks them itself
        me.gradient = me.scratch()
        if self._algorithm.takes_gradient_tensors:
            me.gradient_tensors = [me.gradient]
        if is_summed and overlaps:
            self.unread = source  # `write_share` reads it
            return Abort.NO
        if is_summed:
            self._share = Abort.unless(source.into(me.gradient, 0, me.count, divisor=me.n_workers))
            return Abort.NO  # `write_share` says it
        me.gradient_parts = {}
        for start, stop in pairwise(self._bounds):
            part = start - me.offset, stop - me.offset
            me.gradient_parts[part] = source.measured_into(me.gradient, *part)
        if me.gradient_parts:
            largest = max((found for found, _ in me.gradient_parts.values()), key=_with_nan)
        else:
            largest = source.largest_into(me.gradient)
        me.largest_gradient = largest
        self.exceeds = self._limit is not None and not largest <= self._limit
        if math.isfinite(largest) or (sum_is_checked and self._limit is None):
            return Abort.NO
        return Abort.NON_FINITE

    def _is_finite(self, vector: Tensor) -> bool:
        """Return whether a vector (d,) is finite, and note whether it exceeds the limit."""
        if self._limit is None:
            return all_finite(vector)
        largest = absolute_maximum(vector)
        self.exceeds |= not largest <= self._limit
        return math.isfinite(largest)

    def _vector(self, vector: Tensor | VectorSource) -> Tensor:
        """Return a vector (d,), which is valid until the end of the round if it has to be written."""
        if isinstance(vector, Tensor):
            return vector
        if isinstance(vector, SharedVector):
            return vector.vector()
        out = self._me.scratch()
        vector.into(out, 0, self._me.count)
        return out

    def _vector_and_distance(self, vector: Tensor | VectorSource, other: Tensor) -> tuple[Tensor, float]:
        """Return the same, and its squared distance from `other` (d,)."""
        if isinstance(vector, SharedVector):
            return vector.vector_and_distance(other)
        tensors = () if isinstance(vector, Tensor) else vector.tensors()
        if not tensors:
            out = self._vector(vector)
            return out, squared_distance([out], [other])
        out = self._me.scratch()
        return out, gather_distance(tensors, other, out)

    def _tensors(self, vector: Tensor | VectorSource) -> Sequence[Tensor]:
        """Return a vector (d,) as tensors; see `_vector`."""
        return (() if isinstance(vector, Tensor) else vector.tensors()) or [self._vector(vector)]

    def _read_updated(self, parameters: Tensor | VectorSource, *, waits: bool) -> Tensor:
        """Return the change plus the parameters, (d,): not yet written where it `waits` for `write_share`."""
        if self.unread is not None and not waits:
            out = self._me.scratch()
            measured = self.unread.updated_into(out)
            if measured is not None:
                return self._take_updated(out, *measured)
        consecutive = () if isinstance(parameters, Tensor) else parameters.tensors()
        if self.unread is None or not consecutive:
            return self._me.change_plus(self._vector(parameters))
        plus = consecutive[0] if len(consecutive) == 1 and consecutive[0].dim() == 1 else consecutive
        if not waits:
            return self._read_change(plus)
        self._plus = plus
        return self._me.scratch()

    def _take_updated(self, updated: Tensor, largest: float, checksum: int) -> Tensor:
        self._me.largest_updated, self._me.updated_checksum = largest, checksum
        self._note_updated(largest)
        return updated

    def _note_updated(self, largest: float) -> None:
        self.unread = None
        self._me.require(math.isfinite(largest))
        self.exceeds |= self._limit is not None and not largest <= self._limit

    def _read_difference(
        self, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float]
    ) -> tuple[Tensor, Ends | None]:
        """Return what `Worker.updated_difference` does."""
        me = self._me
        if self.unread is not None:
            out = me.scratch()
            made = self.unread.difference_into(out, published, copies, weights)
            if made is not None:
                self._note_updated(made[0])
                return out, made[1]
        return mixed_difference(me.updated, published, copies, weights, me.scratch()), None

    def _read_change(self, plus: Tensor | Sequence[Tensor] | None) -> Tensor:
        """Return the change (d,), plus another vector (d,) if one is given."""
        source, self.unread = self.unread, None
        assert source is not None, f"{self._algorithm.name} reads the change more often than once a round"
        change = self._me.scratch()
        self._me.require(source.into(change, 0, self._me.count, plus=plus))
        if self._limit is not None:
            self._is_finite(change)
        return change

    def _read_scaled_change(self) -> tuple[Sequence[Tensor], Sequence[float]] | None:
        """See `Worker.read_scaled_change`."""
        scaled = None if self.unread is None else self.unread.scaled()
        if scaled is not None:
            self.unread = None
        return scaled

    def _read_change_and_largest(self, plus: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the change plus another vector (d,), and the indices (k,) of its largest magnitudes."""
        me, scaled = self._me, self._read_scaled_change()
        if scaled is None:
            vector = me.read_change(plus)
            return vector, top_k(vector, k)
        out = me.scratch()
        guesses = me.guesses.get("largest") or me.guesses.setdefault("largest", Guesses())
        is_finite, largest = gather_top_k(*scaled, out, plus, [(me.count, k)], guesses)
        me.require(is_finite)
        if self._limit is not None:
            self._is_finite(take_at(out, largest))
        return out, largest

    def write_share(self, values: Tensor, start: int, stop: int) -> Abort:
        """Divide `values` (d,) from `start` to `stop` by the number of workers. See `WorkerSession.write_share`."""
        if self._share is not None:
            return self._share
        if self.unread is not None:
            is_finite = self.unread.into(values, start, stop, divisor=self._me.n_workers, plus=self._plus)
            return Abort.NO if is_finite else Abort.NON_FINITE
        return Abort.unless(divide(values[start:stop], self._me.n_workers))


def _with_nan(magnitude: float) -> tuple[bool, float]:
    """Return what magnitudes are ordered by: NaN is the largest."""
    return math.isnan(magnitude), magnitude
