"""Imported once by the process that all ranks are forked from, so that they need not import the same themselves.

No other thread may run here, and none does: torch and kernels use one, and there is no backward pass.
"""

import gc

import torch
import torch._dynamo  # by the first optimizer of every process, for longer than torch itself

from laconic import DistributedOptimizer  # noqa: F401 - with all that it imports
from support.methods import SAMPLES
from support.simulated_run import Run, quadratic

torch.set_num_threads(1)
for sample in SAMPLES.values():
    Run(sample, quadratic(), layout="rank0", frames="encoded", dtype=torch.float32).path(3)
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.zeros(1)
torch.optim.SGD([weight]).step()  # the first step of a process imports, too
gc.collect()
gc.freeze()  # a rank that looks through its objects, as its first optimizer does, would copy all it was forked with
