"""`attach`: a model that is sharded inside each node exchanges its gradients by a method between the nodes."""

from collections.abc import Sequence

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.ddp.settings import Settings
from laconic.fsdp.handle import Handle
from laconic.training.automatic import Method


def attach(
    model: object,
    method: Method,
    *,
    mesh: DeviceMesh | None,
    optimizer: Optimizer | None = None,
    layout: str = "auto",
    seed: int = 0,
    timeout_s: float | None = None,
    overlap: bool | None = None,
    local_steps: int = 1,
    grad_scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    allowed: Sequence[Algorithm] | None = None,
) -> Handle:
    """Let a model that `fully_shard` has sharded exchange its gradients by a method from now on. Collective.

    The mesh has two dimensions, nodes and the ranks of a node, and `fully_shard` was given the second one alone. FSDP
    averages gradients inside a node. In the backward pass, or at its end, each rank exchanges its own shard, by the
    method, with the ranks that hold the same shard on other nodes: a node is one worker. Then `.grad` holds the
    method's direction, on every node alike. Passes without gradient synchronization exchange nothing. If any rank of
    any node meets inf or NaN, the round is aborted on all: all gradients are NaN, so that GradScaler skips the step,
    and no memory has changed. Without GradScaler, look at `handle.aborted`, or give the optimizer, whose step is then
    skipped.

    Args:
        model: the root module that `fully_shard` was called with, or what holds it, such as a trainer.
        method: what exchanges the gradients between nodes; or "auto", which the earliest backward pass chooses, as for
            `ddp.attach`.
        mesh: of all ranks, in two dimensions: one is that of `fully_shard`, and the other one goes over the nodes. None
            where one process is alone.
        optimizer: the user's optimizer, which skips the steps of aborted rounds. Methods that read the learning rate
            need it, and so do those that send changes or return parameters: they are exchanged in its step.
        layout: "auto", "allreduce", "rank0", "sharded", "allgather" or "peers"; each node is one rank of it.
        seed: seed of all random draws of the method.
        timeout_s: how long another rank is waited for, seconds; None for as long as the process group waits.
        overlap: whether slices, one for each module that was sharded, are exchanged while the backward pass goes on.
            None for all methods that give the same bits so; with True also those whose blocks then end where a slice
            does; False where a layer is called several times in a forward pass.
        local_steps: steps of the optimizer, which it needs, per exchange.
        grad_scaler: what multiplies the loss, if a float16 script has it: memories then hold gradients as they are
            without it, however the scale changes.
        clip_norm: the largest norm of the direction, over all shards. None for no bound.
        clip_value: the largest magnitude of its elements. None for no bound.
        allowed: what "auto" may choose, beside plain all-reduce; None for csgd and ec-sgd, as `planning.choose`.

    Raises:
        ValueError: for a model or a mesh that cannot be used so, a method that cannot be carried, and other wrong
            arguments; TypeError for wrong types.
        SetupError: if the model has another hook or a method already, ranks differ, or this version of torch has no
            such hook.
        PeerLostError: if a rank is missing.
    """
    settings = Settings(
        optimizer=optimizer, layout=layout, seed=seed, timeout_s=timeout_s, overlap=overlap, local_steps=local_steps,
        grad_scaler=grad_scaler, clip_norm=clip_norm, clip_value=clip_value, nodes=None,
        allowed=allowed,
    )  # fmt: skip
    return Handle(model, mesh, method, settings)
