"""Which versions and what machine made a result: kept in every result file."""

import os
import platform
from typing import Any

import numpy as np
import torch

import laconic


def versions() -> dict[str, str]:
    """The versions that numbers can depend on, by package."""
    return {
        "laconic": laconic.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def machine() -> dict[str, Any]:
    """The machine's size."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
