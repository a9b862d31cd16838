"""Jobs for tests of sessions."""

import torch

from laconic.contract import Algorithm, ModelSpec
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout


def job_of(algorithm: Algorithm, spec: ModelSpec, *, n_workers: int = 4, layout: str = "auto") -> Job:
    """A job of n workers, each of which is a node."""
    chosen = choose_layout(layout, algorithm, spec, n_workers)
    return Job(algorithm=algorithm, seed=3, spec=spec, dtype=torch.float32, layout=chosen)
