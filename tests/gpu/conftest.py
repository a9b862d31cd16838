"""Kernels for a GPU beside the plain ones: on a GPU, or through Triton's interpreter where TRITON_INTERPRET=1 is set.

All tests here are marked `gpu`. `pytest -m gpu` runs them on the machine's own GPU and skips them where there is none;
tests/kernels/test_gpu_kernels.py runs them interpreted.
"""

import os
from copy import copy
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

collect_ignore = [] if torch.cuda.is_available() else ["test_gpu_runs.py"]  # nothing in it is interpreted
_PATTERNS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    of_this_folder = {path: here in path.parents for path in {item.path for item in items}}
    for item in items:
        if of_this_folder[item.path]:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(
                pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")
            )  # the interpreter's


@pytest.fixture(scope="session")
def device():
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU, or TRITON_INTERPRET=1")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def twins(device):
    """twins(family): both versions of a family of kernels."""
    return lambda family: Twins(family, device)


class Twins:
    """A family's version for a GPU, whose every call is compared with the plain version's on the CPU."""

    def __init__(self, family: str, device: torch.device) -> None:
        self.reference = import_module(f"laconic.kernels.reference.{family}")
        self.gpu = import_module(f"laconic.kernels.gpu.{family}")
        self.device = device

    def alike(self, name: str, *arguments, **scalars):
        """Call both; what they return and what they do to their arguments must be the same bits. Returns it."""
        expected, found = self.both(name, *arguments, **scalars)
        assert same_bits(expected, found), (name, scalars, expected, found)
        return expected[0]

    def both(self, name: str, *arguments, **scalars):
        """(returned, arguments afterwards) of the plain version and of the other, brought to the CPU."""
        mine = [moved(one, torch.device("cpu")) for one in arguments]
        peer = [moved(one, self.device) for one in arguments]
        expected = getattr(self.reference, name)(*mine, **scalars)
        found = getattr(self.gpu, name)(*peer, **scalars)
        return (expected, mine), moved((found, peer), torch.device("cpu"))


def moved(value, device: torch.device):
    """A copy on the device, of tensors in lists and tuples too."""
    if isinstance(value, Tensor):
        return value.clone().to(device)
    if isinstance(value, list | tuple):
        return type(value)(moved(one, device) for one in value)
    return copy(value)


def same_bits(one, other) -> bool:
    if isinstance(one, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if one.is_floating_point():
            pattern = _PATTERNS[one.element_size()]
            both_nan = one.isnan() & other.isnan()  # a NaN's other bits are the machine's choice
            return bool((both_nan | (one.view(pattern) == other.view(pattern))).all())
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same_bits(*pair) for pair in zip(one, other, strict=True))
    return one == other
