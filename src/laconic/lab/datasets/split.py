"""The train and test split of data sets that have none of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.errors import DatasetError

# Fixed, so that runs with different seeds are scored on the same test examples.
SPLIT_SEED = 20_240_229
SUBSET_SEED = SPLIT_SEED + 1
TEST_EVERY = 5  # one example in five is a test example: 80/20


def stratified_split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Divide examples 80/20 so that the shares of the classes are preserved, equally in every run.

    Args:
        labels: (n,) int64, each at least 0.

    Returns:
        Train indices and test indices, 1-D int64, each ascending. A class with a single example is in the train
        split, because a class that is only tested cannot be learned.

    Raises:
        DatasetError: Fewer than five examples are in classes of two or more.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    shuffled = torch.randperm(len(labels), generator=generator)
    sizes = torch.bincount(labels)
    shared = shuffled[sizes[labels[shuffled]] > 1]
    if len(shared) < TEST_EVERY:
        raise DatasetError(
            f"an 80/20 split needs at least {TEST_EVERY} examples in classes of two or more, found "
            f"{len(shared)} such among {len(labels)} examples; are the labels classes, not measurements?"
        )
    # Taking every fifth example of the classes in order gives each class its exact share of test examples, up to one
    # example.
    by_class = shared[torch.argsort(labels[shared], stable=True)]
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[by_class[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return torch.nonzero(~is_test).flatten(), torch.nonzero(is_test).flatten()
