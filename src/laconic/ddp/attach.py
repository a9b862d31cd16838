"""`attach`: a model that is already in DistributedDataParallel exchanges its gradients by a method."""

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.ddp.finding import find_ddp
from laconic.ddp.handle import Handle
from laconic.ddp.settings import Settings
from laconic.drivers.distributed.nodes import Nodes
from laconic.training.automatic import Method


def attach(
    model: object,
    method: Method,
    *,
    optimizer: Optimizer | None = None,
    layout: str = "auto",
    seed: int = 0,
    timeout_s: float | None = None,
    overlap: bool | None = None,
    local_steps: int = 1,
    grad_scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nodes: Nodes = None,
    check_every: int = 100,
    replicas: str = "sync",
    allowed: Sequence[Algorithm] | None = None,
) -> Handle:
    """Let a model in DistributedDataParallel exchange its gradients by a method from now on. Collective.

    After `backward()` the parameters' `.grad` holds the method's direction on every rank, where it would hold the mean.
    Under `no_sync()` gradients add up as they do without. If any rank meets inf or NaN, the round is aborted: all
    gradients are NaN on all ranks, so that GradScaler skips the step, and no memory has changed. Without GradScaler,
    look at `handle.aborted` before the step, or give the optimizer, whose step is then skipped.

    Args:
        model: the model in DistributedDataParallel, or what holds it: its module, what `torch.compile`, Accelerate or
            Fabric return, a trainer. A model that nothing wraps, of one worker, is left as it is.
        method: what exchanges the gradients; "auto" measures in the earliest backward pass, and takes the fastest.
        optimizer: the user's optimizer. Methods that a hook cannot carry need it: they send changes, read the learning
            rate, return parameters or need a second gradient. Its `step()` then exchanges.
        layout: "auto", "allreduce", "rank0", "sharded", "allgather" or "peers".
        seed: seed of all random draws of the method.
        timeout_s: how long another rank is waited for, seconds; None for as long as the process group waits.
        overlap: whether slices as large as the buckets are exchanged while the backward pass goes on. None for all
            methods that give the same bits so; with True also those whose blocks then end where a slice does.
        local_steps: steps of the optimizer per exchange. More than one needs the optimizer.
        grad_scaler: what multiplies the loss, if a float16 script has it: memories then hold gradients as they are
            without it, however the scale changes.
        clip_norm: the largest norm of the direction, as in `clip_grad_norm_`. None for no bound.
        clip_value: the largest magnitude of its elements, as in `clip_grad_value_`. None for no bound.
        nodes: "auto" for the ranks of each host, or a number of nodes of equally many consecutive ranks: they average
            their gradients, and the method exchanges between nodes, each as one worker. None for none.
        check_every: rounds between two comparisons of the replicas; 0 for never.
        replicas: what happens to replicas that differ by rounding, as on unlike processors: "sync" gives all ranks
            rank 0's again, "stop" raises ReplicaError. Larger differences always raise, from `backward()`.
        allowed: what "auto" may choose, beside plain all-reduce; None for csgd and ec-sgd, as `planning.choose`.

    Raises:
        ValueError: for a method that cannot be attached, or not without an optimizer, and other wrong arguments.
        SetupError: if the model has another communication hook or a method already, or ranks differ.
        PeerLostError: if a rank is missing.
    """
    settings = Settings(
        optimizer=optimizer, layout=layout, seed=seed, timeout_s=timeout_s, overlap=overlap, local_steps=local_steps,
        grad_scaler=grad_scaler, clip_norm=clip_norm, clip_value=clip_value, nodes=nodes,
        check_every=check_every, replicas=replicas, allowed=allowed,
    )  # fmt: skip
    return Handle(find_ddp(model), method, settings)
