"""What an evaluation of a mini-batch leaves behind beside the gradient: random streams and buffers.

A method that evaluates twice must leave both as one evaluation would.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The state of Python's, numpy's and torch's random streams, and of a model's buffers."""

    python: Any
    numpy: Any
    cpu: Tensor
    gpus: list[Tensor]
    buffers: list[Tensor]

    @classmethod
    def of(cls, buffers: Sequence[Tensor]) -> Self:
        """A copy of them as they are."""
        gpus_in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return cls(
            python=random.getstate(), numpy=np.random.get_state(), cpu=torch.get_rng_state(),
            gpus=torch.cuda.get_rng_state_all() if gpus_in_use else [],
            buffers=[buffer.clone() for buffer in buffers],
        )  # fmt: skip

    def put_back(self, buffers: Sequence[Tensor]) -> None:
        """Make everything as it was."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(self.gpus)
        for buffer, kept in zip(buffers, self.buffers, strict=True):
            buffer.copy_(kept)
