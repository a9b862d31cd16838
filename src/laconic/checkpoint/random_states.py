"""The random generators that a training script draws from: torch's, Python's and numpy's."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """Return how all generators are now."""
    name, key, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(key).astype(np.int64)), *map(float, rest)],
    }  # fmt: skip


def set_random_states(states: Mapping[str, Any]) -> None:
    """Let all generators go on from what was saved. Where there are other GPUs, theirs stay.

    Raises:
        ValueError: it is no state of generators.
    """
    before = random_states()
    try:
        _set(states)
    except Exception as error:  # each generator has its own
        _set(before)
        raise ValueError(f"the states of the random generators cannot be set: {error!r:.200}") from error


def _set(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    name, key, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
