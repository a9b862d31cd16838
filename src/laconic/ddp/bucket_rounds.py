"""One round over the buckets of a backward pass: see `slice_rounds.py`.

DistributedDataParallel hands over a bucket as soon as its gradients are there, in one order on all ranks. When the
round has ended, every bucket's future has its value: the directions, written over the gradients, or NaN.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from laconic.ddp.slice_rounds import Backward, SliceRounds
from laconic.torch_compat import GradBucket, at_end_of_backward


@dataclass(kw_only=True)
class _Buckets:
    """The buckets of one backward pass."""

    backward: Backward
    given: list[tuple[torch.futures.Future[Tensor], Tensor]] = field(default_factory=list)
    """Of each bucket, its future and its values."""


class BucketRounds(SliceRounds):
    """The rounds of a method over the buckets of a model."""

    _now: _Buckets | None = None

    def take(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Take a bucket, and return the future of its direction.

        Raises:
            RuntimeError: if the pass before ended in the middle, or its directions were not applied.
        """
        now = self._now
        if now is None or not bucket.index():
            now = self._now = self._begin_pass()
        buffer = bucket.buffer()
        if buffer.is_cuda:
            now.backward.ready.append(torch.cuda.current_stream(buffer.device).record_event())
        views = views_of(buffer, bucket.parameters())
        self._note(now.backward, [(self._place_of[id(parameter)], gradient) for parameter, gradient in views])
        future: torch.futures.Future[Tensor] = torch.futures.Future(devices=[buffer.device] if buffer.is_cuda else None)
        now.given.append((future, buffer))
        if bucket.is_last():
            self._now = None
            ended = self._end(now.backward, partial(_hand_over, now))
            at_end_of_backward(partial(self._wait_for, ended))  # so that the pass raises what it raises
        elif self._active.is_agreed:
            self._begin_waiting(now.backward)
        return future.then(self._value_of)

    def _begin_pass(self) -> _Buckets:
        """Begin a round, with the earliest bucket of a backward pass."""
        if self._error is None and self._now is not None:
            self._error = RuntimeError(
                "a backward pass ended in the middle, with parts of its round on their way; attach the method anew on "
                "every rank"
            )
        return _Buckets(backward=self._begin())

    def _value_of(self, future: torch.futures.Future[Tensor]) -> Tensor:
        if self._error is not None:
            raise self._error
        return future.value()


def _hand_over(now: _Buckets) -> None:
    for future, buffer in now.given:
        future.set_result(buffer)


def views_of(buffer: Tensor, parameters: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return each parameter of a bucket with its gradient there: in the parameter's strides where it is dense."""
    found, offset = [], 0
    for parameter in parameters:
        stop = offset + parameter.numel()
        if parameter.is_contiguous() or not is_dense(parameter):
            view = buffer[offset:stop].view(parameter.shape)
        else:
            view = buffer[offset:stop].as_strided(parameter.shape, parameter.stride())
        found.append((parameter, view))
        offset = stop
    return found


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor's elements fill its memory without gaps and overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
