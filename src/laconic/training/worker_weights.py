"""Weights of the workers: what one brings to a round is multiplied by its weight, such as its share of the examples."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from laconic.protocol.round_inputs import Inputs
from laconic.training.flat_parameters import FlatParameters


def weighted(
    inputs_of: Callable[[int], Inputs], weights: Mapping[int, float], flat: FlatParameters
) -> Callable[[int], Inputs]:
    """Return the inputs of workers, with the vector of each multiplied by its weight.

    Args:
        inputs_of: returns the inputs of a worker.
        weights: by rank; 1 for those that are not named.
        flat: the parameters, for the length and type of a vector.
    """

    def of(rank: int) -> Inputs:
        inputs = inputs_of(rank)
        vector = inputs.vector
        if not isinstance(vector, Tensor):
            read = torch.empty(flat.d, dtype=flat.dtype, device=flat.device)
            vector.into(read, 0, flat.d)
            vector = read
        return replace(inputs, vector=vector.mul_(weights.get(rank, 1.0)))

    return of
