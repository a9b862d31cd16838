"""Residual networks with batch norm: ResNet-18 for images of about 32x32 pixels, ResNet-50 for large ones.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv:1512.03385).
Differs: the first convolution of ResNet-18 is 3x3 without pooling, as is usual for CIFAR. The stride of a bottleneck is
in its 3x3 convolution, as is usual since; this changes no number of parameters.

Shapes: n images, c channels, h by w pixels.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from laconic.lab.models.shapes import image_shape

_EXPANSION = 4  # of a bottleneck's last convolution


def resnet18(input_shape: tuple[int, ...], n_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-18 for CIFAR, `width` channels first, batch norm; with 64 and 10 classes, 11,173,962 parameters."""
    channels, _, _ = image_shape("resnet18", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
    )
    inside = width
    for stage, n_blocks in enumerate((2, 2, 2, 2)):
        wider = width << stage
        for block in range(n_blocks):
            stride = 2 if stage and not block else 1
            steps = (
                _convolution(inside, wider, 3, stride=stride), nn.ReLU(), _convolution(wider, wider, 3)
            )  # fmt: skip
            layers[f"stage{stage + 1}_{block + 1}"] = _Residual(nn.Sequential(*steps), inside, wider, stride)
            inside = wider
    return nn.Sequential(layers | _head(inside, n_classes))


def resnet50(input_shape: tuple[int, ...], n_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-50, `width` channels first, batch norm; with 64 and 1,000 classes, 25,557,032 parameters."""
    channels, _, _ = image_shape("resnet50", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    inside = width
    for stage, n_blocks in enumerate((3, 4, 6, 3)):
        narrow, wider = width << stage, _EXPANSION * (width << stage)
        for block in range(n_blocks):
            stride = 2 if stage and not block else 1
            steps = (
                _convolution(inside, narrow, 1), nn.ReLU(), _convolution(narrow, narrow, 3, stride=stride), nn.ReLU(),
                _convolution(narrow, wider, 1),
            )  # fmt: skip
            layers[f"stage{stage + 1}_{block + 1}"] = _Residual(nn.Sequential(*steps), inside, wider, stride)
            inside = wider
    return nn.Sequential(layers | _head(inside, n_classes))


class _Residual(nn.Module):
    """relu(steps(x) + shortcut(x)); the shortcut is a 1x1 convolution where the shapes differ."""

    def __init__(self, steps: nn.Module, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.steps = steps
        is_same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if is_same else _convolution(inside, outside, 1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c', h / stride, w / stride)."""
        total: Tensor = self.steps(images) + self.shortcut(images)
        return total.relu()


def _convolution(inside: int, outside: int, size: int, *, stride: int = 1) -> nn.Module:
    """A convolution without bias, and batch norm."""
    convolution = nn.Conv2d(inside, outside, kernel_size=size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outside)))


def _head(inside: int, n_classes: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict(mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), scores=nn.Linear(inside, n_classes))
