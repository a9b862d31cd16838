"""The versions and the machine that made a result. Every result file has them."""

import os
import platform
from typing import Any

import numpy as np
import torch

import laconic


def versions() -> dict[str, str]:
    """Return the versions that results can depend on, by package."""
    return {
        "laconic": laconic.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def machine() -> dict[str, Any]:
    """Return the processor type, number of cores and memory of this machine."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
