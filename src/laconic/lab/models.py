"""Models by name, with initial parameters that depend on the seed alone.

Shapes: n inputs in a batch, *shape the shape of one input, c channels, h by w pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

from laconic.contract import ModelSpec
from laconic.hyperparameters import near_misses
from laconic.lab.defaults import SEED_BOUND
from laconic.random_keys import make_key

HIDDEN = 512  # units of the mlp's hidden layer
CONV_CHANNELS = (16, 32)
CONV_HIDDEN = 128  # units of the cnn's hidden linear layer


def _linear(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """One linear layer: softmax regression."""
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), scores=nn.Linear(math.prod(input_shape), n_classes)))


def _mlp(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """One hidden layer of 512 units with ReLU; 407,050 parameters for 28x28 inputs and 10 classes."""
    return nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(),
            hidden=nn.Linear(math.prod(input_shape), HIDDEN),
            relu=nn.ReLU(),
            scores=nn.Linear(HIDDEN, n_classes),
        )
    )


def _cnn(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Two 3x3 convolutions with max-pooling, one hidden layer, no batch norm; for image inputs.

    Batch norm has running averages beside the parameters, which are not exchanged.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"cnn: input_shape={input_shape} must be (channels, height, width); "
            "take mlp or linear for inputs that are not images"
        )
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, wider in enumerate(CONV_CHANNELS, start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, wider, kernel_size=3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        if min(height, width) >= 4:  # smaller images are not pooled
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
        channels = wider
    layers["flat"] = nn.Flatten()
    layers["hidden"] = nn.Linear(channels * height * width, CONV_HIDDEN)
    layers["relu"] = nn.ReLU()
    layers["scores"] = nn.Linear(CONV_HIDDEN, n_classes)
    return nn.Sequential(layers)


# Name -> maker. The first line of a maker's docstring describes the model.
MODELS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {"cnn": _cnn, "linear": _linear, "mlp": _mlp}


def build(name: str, input_shape: Sequence[int], n_classes: int, seed: int) -> nn.Module:
    """Make a model with PyTorch's default initialization, without changing the global random generators.

    Args:
        name: A key of MODELS.
        input_shape: The shape of one input, without the leading n.
        n_classes: The number of scores per input, at least 2.
        seed: 0 to 2**63 - 1; equal seeds give bit-equal parameters.

    Returns:
        A module on the CPU, (n, *input_shape) float32 -> (n, n_classes) float32 scores before softmax.

    Raises:
        ValueError: The name is unknown, or an argument is out of range.
    """
    shape = tuple(int(size) for size in input_shape)
    if name not in MODELS:
        known = sorted(MODELS)
        raise ValueError(f"unknown model {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    if not shape or min(shape) < 1:
        raise ValueError(f"{name}: input_shape={shape} must have at least one size, and none below 1")
    if n_classes < 2:
        raise ValueError(f"{name}: n_classes={n_classes} must be at least 2")
    if not 0 <= seed < SEED_BOUND:
        raise ValueError(f"{name}: seed={seed} must be 0 to 2**63 - 1")
    # Only the CPU generator is seeded: torch.manual_seed would reseed every GPU too, and forking those would start
    # CUDA in processes that do not use it.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(make_key(seed, "model", 0, 0, "init"))
        return MODELS[name](shape, n_classes)


def spec_of(model: nn.Module) -> ModelSpec:
    """Return the names and shapes of the model's parameters."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    return ModelSpec(names=names, shapes=tuple(tuple(parameter.shape) for parameter in parameters))
