"""Models without branches: linear, one hidden layer, a small CNN.

Shapes: n inputs in a batch, *shape the shape of one input, c channels, h by w pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from laconic.lab.models.shapes import image_shape

CONV_CHANNELS = (16, 32)
CONV_HIDDEN = 128  # units of the cnn's hidden linear layer


def linear(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """One linear layer: softmax regression."""
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), scores=nn.Linear(math.prod(input_shape), n_classes)))


def mlp(input_shape: tuple[int, ...], n_classes: int, *, width: int = 512) -> nn.Module:
    """One hidden layer of `width` units with ReLU; with 512, 407,050 parameters for 28x28 inputs and 10 classes."""
    return nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(),
            hidden=nn.Linear(math.prod(input_shape), width),
            relu=nn.ReLU(),
            scores=nn.Linear(width, n_classes),
        )
    )


def cnn(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Two 3x3 convolutions with max-pooling, one hidden layer, no batch norm; for image inputs.

    Batch norm has running averages beside the parameters, which are not exchanged.
    """
    channels, height, width = image_shape("cnn", input_shape)
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
