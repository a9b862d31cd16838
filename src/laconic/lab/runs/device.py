"""On which device a run computes: the CPU, or a GPU of this machine."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from laconic.errors import Named, OptionError

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """The GPUs that torch can use on this machine."""

    count: int
    why_none: str = ""
    """Why there are none, as a clause."""


def gpus_here() -> Gpus:
    """Return what torch finds, without starting to use one."""
    if torch.version.cuda is None and torch.version.hip is None:
        return Gpus(count=0, why_none=f"torch {torch.__version__} is built for the CPU alone")
    with warnings.catch_warnings():  # what a driver complains of is in the refusal in our words
        warnings.simplefilter("ignore")
        count = torch.cuda.device_count()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if shown is None else f", with CUDA_VISIBLE_DEVICES={shown!r} in the environment"
    return Gpus(count=count, why_none=f"torch {torch.__version__} finds no GPU on this machine{hidden}")


def check_device(text: str, gpus: Gpus) -> None:
    """Refuse a device that is not there.

    Args:
        text: The option: "cpu", "cuda" or "cuda:1".
        gpus: Those of this machine.

    Raises:
        OptionError: It says what is there, and the way out.
    """
    kind, _, number = text.partition(":")
    asked = Named("device", text)
    if kind == "cpu":
        return
    if not gpus.count:
        raise OptionError(asked, f": {gpus.why_none}; take ", Named("device", "cpu"), ", or leave it out")
    if number and int(number) >= gpus.count:
        here = "is 1 GPU here, cuda:0" if gpus.count == 1 else f"are {gpus.count} GPUs here, from cuda:0"
        last = "" if gpus.count == 1 else f" to cuda:{gpus.count - 1}"
        raise OptionError(asked, f": there {here}{last}; take one of them, or ", Named("device", "cuda"))


def device_of_rank(text: str, local_rank: int, gpus: Gpus) -> torch.device:
    """Return the device of one process.

    Args:
        text: The option. "cuda" without a number deals the GPUs out among the processes of this machine.
        local_rank: The number of this process among those of this machine.
        gpus: Those of this machine.

    Raises:
        OptionError: It is not there.
    """
    check_device(text, gpus)
    kind, _, number = text.partition(":")
    if kind == "cpu":
        return CPU
    return torch.device(kind, int(number) if number else local_rank % gpus.count)


def local_rank(rank: int, environment: Mapping[str, str]) -> int:
    """Return the number of a rank among those of its machine; its rank where nothing says it."""
    text = environment.get("LOCAL_RANK", "").strip()
    return int(text) if text.isdecimal() else rank


def use_device(device: torch.device) -> None:
    """Make a device the one on which kernels start."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def generators_of(device: torch.device) -> list[torch.Generator]:
    """Return the generators that random layers on this device draw from. A GPU must be in use."""
    # Not torch.manual_seed: it also queues the seed, with a stack trace, for every GPU.
    found = [torch.default_generator]
    if device.type == "cuda":
        found.append(torch.cuda.default_generators[device.index])
    return found


def described_device(text: str) -> dict[str, Any]:
    """Return the type of GPU that a run has used, for its record; nothing of a run on the CPU."""
    if text == "cpu":
        return {}
    number = text.partition(":")[2]
    try:
        name: str | None = torch.cuda.get_device_name(int(number or 0))
    except Exception:  # what cannot be found out costs no result
        name = None
    return {"gpu": name, "cuda": torch.version.cuda or torch.version.hip}
