"""The versions and the machine that made a result. Every result file has them; what cannot be found out is None."""

import os
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import laconic


def versions() -> dict[str, str | None]:
    """Return the versions that results can depend on, by package."""
    return {
        "laconic": laconic.__version__,
        "torch": _found(lambda: torch.__version__),
        "numpy": _found(lambda: np.__version__),
        "python": _found(platform.python_version),
    }


def machine() -> dict[str, Any]:
    """Return the processor type, number of cores and memory of this machine."""
    return {
        "processor": _found(platform.machine),
        "cores": _found(os.cpu_count),
        "memory_bytes": _found(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
    }


def _found(ask: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Return an answer; None where a system has none, which must not cost a result."""
    try:
        return ask()
    except Exception:
        return None
