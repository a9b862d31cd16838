"""Joining the process group that torchrun prepared."""

import os
from datetime import timedelta

import torch.distributed as dist


def is_under_torchrun() -> bool:
    """Return whether torchrun, or a launcher that sets the same environment variables, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def join_torchrun(timeout_s: float) -> int:
    """Join the process group over gloo, and return the number of processes."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    return dist.get_world_size()
