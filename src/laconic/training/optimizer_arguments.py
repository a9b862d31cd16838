"""What `DistributedOptimizer` is given: checks, and the tensors that are not trained."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.hyperparameters import is_number, plain_number
from laconic.training.claims import claims
from laconic.training.inner_checks import check_inner
from laconic.training.local_steps import check_local_steps
from laconic.training.parameter_checks import check_parameters
from laconic.training.replica_check import REPLICAS
from laconic.training.wrappers import refuse_wrappers

_LONGEST_TIMEOUT_S = 1e8  # three years; the engine counts milliseconds


def fixed_tensors(inner: Optimizer, model: torch.nn.Module | None) -> list[Tensor]:
    """Return the tensors that this optimizer does not change, but all ranks must share.

    They are frozen parameters, parameters of the model in no group of an optimizer that exchanges, and buffers.
    """
    listed = [parameter for group in inner.param_groups for parameter in group["params"]]
    fixed = [parameter for parameter in listed if not parameter.requires_grad]
    if model is not None:
        known = {id(parameter) for parameter in listed}
        others = [parameter for parameter in model.parameters() if id(parameter) not in known]
        fixed += [parameter for parameter in others if not any(claim.holds([parameter]) for claim in claims())]
        fixed += list(model.buffers())
    return fixed


def check_model(inner: Optimizer, model: torch.nn.Module | None, group: dist.ProcessGroup | None, sparse: str) -> None:
    """Raise ValueError for a model, or parameters, that an exchange cannot keep equal on all ranks."""
    if sparse not in ("refuse", "dense"):
        raise ValueError(f"sparse_gradients={sparse!r} must be 'refuse' or 'dense'")
    check_parameters(inner, model, refuse_sparse=sparse == "refuse")
    trained = [parameter for each in inner.param_groups for parameter in each["params"] if parameter.requires_grad]
    refuse_wrappers(trained, model, group)


def check_seed(seed: int) -> None:
    """Raise TypeError or ValueError for a seed that no key can be made of."""
    if not -(2**63) <= plain_number(seed, "seed", int) < 2**63:
        raise ValueError(f"seed={seed} must be in -2**63 .. 2**63 - 1")


def check_plain(layout: str, seed: int, check_every: int) -> None:
    """Raise TypeError or ValueError for arguments of the wrong type, and for a seed that no key can be made of."""
    check_seed(seed)
    plain_number(check_every, "check_every", int)
    if not isinstance(layout, str):
        raise TypeError(f"layout={layout!r:.80} must be a text, such as 'auto' or 'rank0'")


def check_timeout(timeout_s: float | None) -> None:
    """Raise TypeError or ValueError for what no rank can be waited for."""
    if timeout_s is not None and not is_number(timeout_s, float):
        raise TypeError(f"timeout_s={timeout_s!r:.80} must be a number of seconds, or None for the process group's own")
    if timeout_s is not None and not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
        raise ValueError(
            f"timeout_s={timeout_s} must be above 0 and at most {_LONGEST_TIMEOUT_S:g} seconds; None takes the process "
            "group's own"
        )


def check_comparison(check_every: int, replicas: str) -> None:
    """Raise ValueError for wrong settings of the check of replicas."""
    if check_every < 0:
        raise ValueError(f"check_every={check_every} must be at least 0; 0 never compares the replicas")
    if replicas not in REPLICAS:
        raise ValueError(f"replicas={replicas!r:.80} must be one of {', '.join(REPLICAS)}")


def method_of(algorithm: object) -> Algorithm:
    """Return the method that was given. Raises TypeError for something else."""
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f'algorithm={algorithm!r:.80} must be an algorithm such as laconic.CompSkip(), or "auto"')
    return algorithm


def check_arguments(
    inner: Optimizer,
    algorithm: Algorithm,
    model: torch.nn.Module | None,
    local_steps: int,
    check_every: int,
    replicas: str,
    timeout_s: float | None,
    group: dist.ProcessGroup | None,
    sparse_gradients: str,
) -> None:
    """Raise TypeError, ValueError or RuntimeError for wrong arguments of `DistributedOptimizer`."""
    check_inner(inner, algorithm, local_steps)
    if model is not None and not isinstance(model, torch.nn.Module):
        raise TypeError(f"model={model!r:.80} must be the torch.nn.Module that the optimizer trains, or None")
    if group is not None and not isinstance(group, dist.ProcessGroup) and group != dist.GroupMember.NON_GROUP_MEMBER:
        raise TypeError(f"group={group!r:.80} must be a process group that torch.distributed.new_group made, or None")
    check_timeout(timeout_s)
    check_comparison(check_every, replicas)
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
    check_model(inner, model, group, sparse_gradients)
