"""A warning where one round after another is aborted: training then stands still, and nothing else says so."""

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from laconic.kernels.api import absolute_maximum
from laconic.statements import warn
from laconic.training.flat_parameters import FlatParameters

WARNED_AFTER = 10


class Rounds(Protocol):
    """What a driver knows of its rounds."""

    @property
    def rounds(self) -> int:
        """Number of rounds so far."""

    @property
    def causes(self) -> Sequence[int]:
        """Ranks of the workers of this process whose own numbers abort the last round."""

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that tells users what concerns all ranks."""


class AbortedRounds:
    """Counts the rounds that were aborted in a row, because of inf or NaN."""

    def __init__(self, driver: Rounds, flat: FlatParameters) -> None:
        self.in_a_row = 0
        self._driver = driver
        self._flat = flat

    def note(self, aborted: bool) -> None:
        """Take note of a round. Warns at the 10th in a row, on rank 0 and where own numbers are the cause."""
        self.in_a_row = self.in_a_row + 1 if aborted else 0
        if self.in_a_row == WARNED_AFTER and (self._driver.speaks or self._driver.causes):
            warn(
                f"{WARNED_AFTER} rounds in a row were aborted, rounds {self._driver.rounds - WARNED_AFTER} to "
                f"{self._driver.rounds - 1}: {self._cause()}. No parameter and no memory has changed in them. Look at "
                "the data and the loss of these rounds; a lower learning rate or clipping helps where training diverges"
            )

    def _cause(self) -> str:
        flat = self._flat
        name = _name_of_non_finite(flat.names, flat.parameters)
        if name is not None:
            return f"parameter {name!r} is inf or NaN itself, since an earlier step of the inner optimizer"
        causes = list(self._driver.causes)
        if not causes:
            return "another rank met inf or NaN, or the sum over the ranks overflows"
        workers = f"worker{'s' * (len(causes) > 1)} {', '.join(map(str, causes))}"
        name = _name_of_non_finite(flat.names, [parameter.grad for parameter in flat.parameters])
        if name is not None:
            return f"{workers} met inf or NaN, in the gradient of {name!r}"
        return f"{workers} met inf or NaN, or numbers whose sum with what the method keeps overflows {flat.dtype}"


def _name_of_non_finite(names: Sequence[str], tensors: Sequence[Tensor | None]) -> str | None:
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is not None and not math.isfinite(absolute_maximum(tensor.detach().reshape(-1))):
            return name
    return None
