"""Random shifts and mirror images of train examples, as is usual for CIFAR.

What becomes of an example in an epoch follows from the seed, the example and the epoch alone: the order of the calls,
the number of workers and the driver do not matter.

Shapes: n train examples, b examples in a batch, c channels, h by w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from laconic.random_keys import make_key

MARGIN = 4  # pixels of padding at each side; He et al. 2016, 4.2
_OFFSETS = 2 * MARGIN + 1


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Pads images by 4 pixels, crops them to their size at a random place, and mirrors every second one."""

    n_examples: int
    seed: int
    background: tuple[float, ...]
    """The value of a black pixel by channel, which the padding has."""
    # Epoch -> what is drawn for each example: (n,) int64.
    _by_epoch: dict[int, Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __call__(self, images: Tensor, examples: Tensor, epoch: int) -> Tensor:
        """Return changed copies of images.

        Args:
            images: (b, c, h, w).
            examples: (b,) int64, which examples they are.
            epoch: From 0.
        """
        draws = self._of_epoch(epoch)[examples]
        mirrored, down, right = draws % 2 == 1, draws // 2 % _OFFSETS, draws // 2 // _OFFSETS
        height, width = images.shape[2:]
        padded = torch.tensor(self.background).view(1, -1, 1, 1).repeat(
            len(images), 1, height + 2 * MARGIN, width + 2 * MARGIN
        )  # fmt: skip
        padded[:, :, MARGIN : MARGIN + height, MARGIN : MARGIN + width] = images
        across = torch.arange(width).expand(len(images), -1)
        across = torch.where(mirrored[:, None], across.flip(1), across)
        rows = (down[:, None] + torch.arange(height))[:, None, :, None]
        columns = (right[:, None] + across)[:, None, None, :]
        return padded[
            torch.arange(len(images))[:, None, None, None], torch.arange(images.shape[1])[None, :, None, None],
            rows, columns,
        ]  # fmt: skip

    def _of_epoch(self, epoch: int) -> Tensor:
        if epoch not in self._by_epoch:
            generator = torch.Generator().manual_seed(make_key(self.seed, "data", 0, epoch, "augment"))
            self._by_epoch.clear()
            self._by_epoch[epoch] = torch.randint(2 * _OFFSETS * _OFFSETS, (self.n_examples,), generator=generator)
        return self._by_epoch[epoch]
