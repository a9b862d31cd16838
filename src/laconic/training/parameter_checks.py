"""What tensors a model may have: plain ones, which can be read and written as one vector."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from laconic.drivers.distributed.door import door
from laconic.torch_compat import is_flat_shard
from laconic.training.parameter_names import names_of
from laconic.training.wrappers import HOLDS_SHARDS, remedy

_TRAINABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_parameters(inner: Optimizer, model: nn.Module | None, *, refuse_sparse: bool) -> None:
    """Raise ValueError for a parameter that cannot be trained, or a tensor of the model that ranks cannot share.

    With `refuse_sparse`, also for a layer whose gradients are sparse.
    """
    given = names_of(model)
    seen: set[int] = set()
    for number, group in enumerate(inner.param_groups):
        in_group = group.get("param_names") or [f"group{number}.{place}" for place in range(len(group["params"]))]
        for name, parameter in zip(in_group, group["params"], strict=True):
            called = given.get(id(parameter), name)
            _refuse(f"{door().parameters}: parameter {called!r}", _not_plain(parameter) or _not_trainable(parameter))
            _refuse(
                f"{door().parameters}: parameter {called!r}",
                "is listed twice; list it once" if id(parameter) in seen else "",
            )
            seen.add(id(parameter))
    if model is not None:
        if given and not seen & given.keys():
            raise ValueError(
                f"model: it has none of the parameters of `{door().optimizer}`; is it a copy, or is the optimizer of "
                "another model?"
            )
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            _refuse(f"model: {name!r}", "" if id(tensor) in seen else _not_plain(tensor))
        for layer in model.modules() if refuse_sparse else ():
            if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse and id(layer.weight) in seen:
                raise ValueError(
                    f"model: {given[id(layer.weight)]!r} is of an {type(layer).__name__} with sparse gradients; make "
                    f"it with sparse=False{door().or_dense}"
                )


def _refuse(what: str, why: str) -> None:
    if why:
        raise ValueError(f"{what} {why}")


def _not_plain(tensor: Tensor) -> str:
    """Return why a tensor has no plain memory of its own, and what to do; empty if it has."""
    kind = type(tensor)
    if is_lazy(tensor):
        return "has no shape yet; run the model once before the optimizer is made"
    if kind.__name__ == "DTensor":
        return f"is a DTensor, as fully_shard and tensor parallelism make them, which {HOLDS_SHARDS}; {remedy()}"
    if is_flat_shard(tensor):
        return f"belongs to FullyShardedDataParallel, which {HOLDS_SHARDS}; {remedy()}"
    if kind.__torch_dispatch__ != Tensor.__torch_dispatch__:
        return f"is a {kind.__name__}, whose memory only its own class understands; give a plain torch.nn.Parameter"
    if tensor.layout != torch.strided:
        return f"has the layout {tensor.layout}; make it dense, for instance by .to_dense()"
    if tensor.is_meta:
        return "is on the device meta, without values; load it or call model.to_empty(device=...) first"
    if tensor.numel() and not tensor.untyped_storage().size():
        return "has freed memory, as a sharding library leaves it; gather its values first"
    return ""


def _not_trainable(parameter: Tensor) -> str:
    if not parameter.requires_grad:
        return ""
    if parameter.is_complex():
        return (
            f"is {parameter.dtype}; only real floats can be trained: keep torch.view_as_real(w) as the parameter, and "
            "use torch.view_as_complex(parameter) in forward"
        )
    if parameter.dtype not in _TRAINABLE:
        return f"is {parameter.dtype}; only {', '.join(str(each)[6:] for each in _TRAINABLE)} can be trained"
    if overlaps(parameter):
        return "has elements that share memory, as expand() makes them; use .clone() of it"
    return ""


def overlaps(tensor: Tensor) -> bool:
    """Return whether two elements of a strided tensor may lie at one place."""
    end = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride < end:
                return True
            end = stride * (size - 1) + end
    return False
