"""What no driver can run is refused when the job is described, before anything is sent."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from laconic import SGD
from laconic.contract import ModelSpec
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout

SPEC = ModelSpec.of_sizes(6)


def job_of(algorithm, layout, n_workers):
    return Job(
        algorithm=algorithm,
        seed=0,
        spec=SPEC,
        dtype=torch.float32,
        layout=choose_layout(layout, algorithm, SPEC, n_workers),
    )


def test_more_workers_than_a_header_numbers_are_refused():
    with pytest.raises(ValueError, match=r"workers=65,537 must be at most 65,536"):
        job_of(SGD(), "allreduce", 65_537)


def test_a_method_whose_results_are_applied_later_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Delayed(SGD):
        delay: ClassVar[int] = 1

    with pytest.raises(ValueError, match=r"delay=1 must be 0"):
        job_of(Delayed(), "allreduce", 2)
