"""Steps of plain SGD of the tensors of a model: the reference, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def descend(tensors: Sequence[Tensor], gradients: Sequence[Tensor], *, factor: float) -> None:
    """Add `factor` times its gradient to each tensor, as a step of torch's SGD does.

    Args:
        tensors: Of any shapes and one type of floats, overwritten.
        gradients: As many, each with as many elements as its tensor.
        factor: The learning rate times -1.
    """
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.add_(gradient.view_as(tensor), alpha=factor)
