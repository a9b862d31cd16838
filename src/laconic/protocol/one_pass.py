"""Steps of a server's own model along a mean that is not written: how a server session takes them."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from laconic.contract import Inbox
from laconic.protocol.landing import SumWhileLanding, Write
from laconic.wire import Dense


class OnePassSteps(Protocol):
    """Steps the server's own model along a mean that is not written."""

    def are_taken(self) -> bool:
        """Return whether `along_mean` takes such steps now, unless numbers are large."""

    def begin(self) -> tuple[Tensor, Write] | None:
        """Begin a step whose packets are still to come, if it can be taken back; end it by `end` or any other step.

        Returns:
            The vector (d,) that the new parameters are written to, and `write` as of `SumWhileLanding`.
        """

    def is_begun(self) -> bool:
        """Return whether `end` may end what `begin` has begun: nothing has changed since that the step depends on."""

    def end(self, largest: float) -> None:
        """Keep what was written since `begin`, if it `is_begun`. `largest` is its largest magnitude.

        Raises:
            NonFiniteError: where that is inf or NaN. The step is taken back.
        """

    def along_mean(self, vectors: Sequence[Tensor], largest: float) -> tuple[Tensor, float] | None:
        """Take a step along the mean of vectors (d,), of which none has a magnitude above `largest`.

        Returns:
            The new parameters (d,), finite, and a bound on their magnitudes; None where no such step was taken.
        """


def made_step(
    steps: OnePassSteps, while_landing: SumWhileLanding | None, inbox: Inbox, dtype: torch.dtype
) -> tuple[Tensor, float, int | None] | None:
    """Take a step along an inbox's mean, or end the one that was taken while the packets came.

    Args:
        steps: takes it.
        while_landing: what was made of the packets while they came, if anything.
        inbox: the packets.
        dtype: the model's type.

    Returns:
        As `OnePassSteps.along_mean`, and the CRC-32 of the new parameters' bytes if it is known.

    Raises:
        NonFiniteError: as `OnePassSteps.end`.
    """
    made = None if while_landing is None else while_landing.made_of(dict(inbox))
    if made is not None:
        steps.end(made[1])
        return made
    vectors, largest = [], 0.0
    for packet in inbox.values():
        if type(packet) is not Dense or packet.values.dtype is not dtype or not packet.values.is_cpu:
            return None
        vectors.append(packet.values)
        largest = max(largest, packet.absolute_maximum)
    taken = steps.along_mean(vectors, largest) if vectors else None
    return None if taken is None else (*taken, None)
