"""Finds the DistributedDataParallel model in what a user has: it, a wrapper around it, a trainer, or its module.

| a user has | the wrapped model is |
|---|---|
| `torch.compile(ddp)` | `_orig_mod` |
| what Fabric's `setup` returns | `_forward_module` |
| a `Trainer` of transformers | `model_wrapped` |
| a `Trainer` of Lightning | `strategy.model` |
| the bare module, as trainers hand it out | the one that has its parameters |
"""

import gc

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from laconic.training.wrappers import wrappers_of

_ATTRIBUTES = ("_orig_mod", "_forward_module", "model_wrapped", "strategy", "model", "module")
_REDUCES_OTHERWISE = "it is not averaged by DistributedDataParallel but by {}; laconic cannot take its place"


def find_ddp(model: object) -> DistributedDataParallel | None:
    """Return the DistributedDataParallel model, or None if there is none and one worker is alone.

    Raises:
        TypeError: for what is no module and holds none.
        ValueError: if several workers train a module that nothing wraps, or that another wrapper reduces, or if several
            models wrap it or parts of it.
    """
    module = module_in(model, DistributedDataParallel)
    if module is None:
        raise TypeError(f"model={type(model).__name__} must be a torch.nn.Module, or a trainer that holds one")
    if isinstance(module, DistributedDataParallel):
        return module
    found, wrappers = _of(module)
    if len(found) > 1:
        gc.collect()  # a wrapper that nobody holds any more is none
        found, wrappers = _of(module)
    if len(found) > 1:
        raise ValueError(
            f"model: {len(found)} DistributedDataParallel models have parameters of this {type(module).__name__}; "
            "attach to each of those that are trained, and drop others"
        )
    if found:
        return found[0]
    kind = next((type(wrapper).__name__ for wrapper in wrappers), "")
    if kind:
        raise ValueError(f"model: {_REDUCES_OTHERWISE.format(kind)}")
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    raise ValueError(
        f"model: no DistributedDataParallel wraps this {type(module).__name__}, and {dist.get_world_size()} workers "
        "train it; wrap it before, or use laconic.DistributedOptimizer, which needs no wrapper"
    )


def _of(module: nn.Module) -> tuple[list[DistributedDataParallel], list[nn.Module]]:
    """Return the DistributedDataParallel models that have parameters of a module, and all wrappers that have."""
    wrappers = wrappers_of({id(parameter) for parameter in module.parameters()})
    return [wrapper for wrapper in wrappers if isinstance(wrapper, DistributedDataParallel)], wrappers


def module_in(model: object, kind: type) -> nn.Module | None:
    """Return the module of this kind within what a user has, or else the outermost module; None if there is none."""
    return _module_in(model, kind, set())


def _module_in(thing: object, kind: type, seen: set[int]) -> nn.Module | None:
    if isinstance(thing, kind) or id(thing) in seen:
        return thing if isinstance(thing, nn.Module) else None
    seen.add(id(thing))
    outermost = thing if isinstance(thing, nn.Module) else None
    for name in _ATTRIBUTES:
        held = getattr(thing, name, None)
        inside = None if held is None else _module_in(held, kind, seen)
        if isinstance(inside, kind):
            return inside
        outermost = outermost or inside
    return outermost
