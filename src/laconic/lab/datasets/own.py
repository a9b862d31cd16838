"""A data set from a user's own function."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from laconic.errors import Named, OptionError
from laconic.lab.datasets.dataset import Dataset
from laconic.lab.own_functions import call, wrong_result

_WANTED = "(train inputs, train labels, test inputs, test labels), tensors or arrays, or a laconic.lab.datasets.Dataset"


def own_dataset(text: str, path: Path | None) -> Dataset:
    """Return the data set of the function that a text names.

    Args:
        text: `module:function`. It is called without an argument, or with the path.
        path: The file or folder that was given.

    Raises:
        OptionError: The function cannot be found, raises, or returns something else; or the examples are not valid.
    """
    found = call(text, "dataset", *(() if path is None else (path,)))
    if isinstance(found, Dataset):
        return found
    if not isinstance(found, Sequence) or len(found) != 4:
        raise wrong_result(text, "dataset", found, _WANTED)
    try:
        tensors = [torch.as_tensor(each) for each in found]
        train, test = _inputs(tensors[0]), _inputs(tensors[2])
        labels = [_labels(each) for each in (tensors[1], tensors[3])]
        return Dataset(
            name=text, train_inputs=train, train_labels=labels[0], test_inputs=test, test_labels=labels[1],
            n_classes=max(2, 1 + max(int(each.max()) for each in (*labels, *_characters(train, test)))),
        )  # fmt: skip
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(Named("dataset", text), f": what it returned cannot be trained on: {error}") from None


def _inputs(values: Tensor) -> Tensor:
    return values.contiguous() if values.dtype == torch.int64 else values.to(torch.float32).contiguous()


def _labels(values: Tensor) -> Tensor:
    if values.is_floating_point() and not bool((values == values.round()).all()):
        raise ValueError(f"labels must be whole numbers from 0, found {values.flatten()[0]:g}; they are classes")
    return values.to(torch.int64).contiguous()


def _characters(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(each for each in inputs if each.dtype == torch.int64)
