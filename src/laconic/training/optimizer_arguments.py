"""What `DistributedOptimizer` is given: checks, and the tensors that are not trained."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from laconic.contract import Algorithm
from laconic.training.local_steps import check_local_steps
from laconic.training.replica_check import REPLICAS


def fixed_tensors(inner: Optimizer, model: torch.nn.Module | None) -> list[Tensor]:
    """Return the tensors that no step changes, but all ranks must share: frozen parameters and the model's buffers."""
    known = [parameter for group in inner.param_groups for parameter in group["params"]]
    if model is not None:
        listed = {id(parameter) for parameter in known}
        known += [parameter for parameter in model.parameters() if id(parameter) not in listed]
        known += list(model.buffers())
    return [tensor for tensor in known if not tensor.requires_grad]


def check_arguments(
    inner: Optimizer,
    algorithm: Algorithm,
    model: torch.nn.Module | None,
    local_steps: int,
    check_every: int,
    replicas: str,
    timeout_s: float,
    group: dist.ProcessGroup | None,
) -> None:
    """Raise TypeError, ValueError or RuntimeError for wrong arguments of `DistributedOptimizer`."""
    if not isinstance(inner, Optimizer):
        raise TypeError(f"inner={inner!r:.80} must be a torch.optim.Optimizer")
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f"algorithm={algorithm!r:.80} must be an algorithm such as laconic.CompSkip()")
    if isinstance(inner, LBFGS):
        raise ValueError("inner=LBFGS evaluates its closure several times a step, and a round exchanges one gradient")
    if check_every < 0 or timeout_s <= 0:
        raise ValueError(f"check_every={check_every} must be at least 0 and timeout_s={timeout_s} above 0")
    if replicas not in REPLICAS:
        raise ValueError(f"replicas={replicas!r:.80} must be one of {', '.join(REPLICAS)}")
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "no process group: call torch.distributed.init_process_group(...) first, or start the script with "
            "torchrun; to run many workers in one process use laconic.Simulation"
        )
    if algorithm.second_gradient and model is None:
        raise ValueError(
            f"model: {algorithm.name} evaluates each mini-batch at two points and restores the model's buffers; "
            "pass model=model"
        )
    if group is not None and dist.get_rank(group) < 0:
        raise ValueError(f"group: this process, global rank {dist.get_rank()}, is not one of its ranks")
    check_local_steps(algorithm, local_steps)
