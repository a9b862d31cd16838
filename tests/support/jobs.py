"""Jobs and models for tests of sessions."""

import math

import torch

from laconic.contract import Algorithm, ModelSpec
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout


def job_of(algorithm: Algorithm, spec: ModelSpec, *, n_workers: int = 4, layout: str = "auto") -> Job:
    """A job of n workers, each of which is a node."""
    chosen = choose_layout(layout, algorithm, spec, n_workers)
    return Job(algorithm=algorithm, seed=3, spec=spec, dtype=torch.float32, layout=chosen)


def matrices_of(*sizes: int) -> ModelSpec:
    """A model of matrices of these sizes, each as square as its size allows; of prime size, it has one row."""
    rows = [max(divisor for divisor in range(1, math.isqrt(size) + 1) if size % divisor == 0) for size in sizes]
    return ModelSpec.of_shapes(*((height, size // height) for height, size in zip(rows, sizes, strict=True)))
