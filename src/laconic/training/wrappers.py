"""Who else reduces gradients or holds shards: DistributedDataParallel, FSDP and their like, refused by name.

A wrapper reduces the gradients of its parameters also if it is not the model that `DistributedOptimizer` is given, and
if it is made later. So those that exist are looked up once, and those that are made afterwards are seen when they take
their module.
"""

import gc
import sys
from collections.abc import Iterator, Sequence
from weakref import WeakSet

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel

from laconic.drivers.distributed.door import door
from laconic.training.claims import claims

REDUCES = "averages all gradients itself, so that they would be sent twice"
HOLDS_SHARDS = "leaves each rank another part of a parameter, where an exchange needs it whole"
_OF_OTHERS = {"DeepSpeedEngine": "exchanges gradients itself"}  # classes of packages that may be missing
_REMEDIES = {  # by module, where a framework makes the wrapper
    "transformers": "Trainer: trainer.accelerator.prepare_model = lambda model, **_: model.to(trainer.args.device)",
    "accelerate": "Accelerate: model = accelerator.prepare_model(model, evaluation_mode=True)",
    "lightning": "Lightning: a subclass of DDPStrategy whose configure_ddp does nothing",
    "pytorch_lightning": "Lightning: a subclass of DDPStrategy whose configure_ddp does nothing",
    "ray.train": "Ray: ray.train.torch.prepare_model(model, parallel_strategy=None)",
}
_known: "WeakSet[nn.Module]" = WeakSet()
_ours: "WeakSet[nn.Module]" = WeakSet()
_is_watching = False


def hand_over(wrapper: DistributedDataParallel) -> None:
    """Take note that a wrapper leaves gradients as they are, since its communication hook is ours."""
    _ours.add(wrapper)


def take_back(wrapper: DistributedDataParallel) -> None:
    """Take note that a wrapper averages gradients again."""
    _ours.discard(wrapper)


def refuse_wrappers(parameters: Sequence[Tensor], model: nn.Module | None, group: dist.ProcessGroup | None) -> None:
    """Raise ValueError if a wrapper that exists reduces the gradients of these parameters, or shards them.

    Args:
        parameters: those to train.
        model: the user's model, if it is known.
        group: the ranks that train together; None for all.
    """
    for module in () if model is None else model.modules():
        if reason := _reason(module, group):
            raise ValueError(f"model: it is in a {reason}; {remedy()}")
    ids = {id(parameter) for parameter in parameters}
    if _any_reason(wrappers_of(ids), group):
        gc.collect()  # one that nobody holds reduces nothing
        if reason := _any_reason(wrappers_of(ids), group):
            raise ValueError(f"{door().parameters}: its parameters are in a {reason}; {remedy()}")


def remedy() -> str:
    """Return what users can do instead, also where a framework that is in use makes the wrapper."""
    of_frameworks = dict.fromkeys(text for module, text in _REMEDIES.items() if module in sys.modules)
    text = (
        "train the plain module, which laconic makes equal on all ranks: leave the wrapper out, or take `.module` out "
        "of it and drop it"
    )
    return "; ".join([text, *of_frameworks])


def wrappers_of(ids: set[int]) -> list[nn.Module]:
    """Return the wrappers that have one of these parameters.

    The first call looks for all in this process, and sees to it that later ones are known.
    """
    global _is_watching
    if not _is_watching:
        _is_watching = True
        register_module_module_registration_hook(_see)
        kinds, things = tuple(_kinds()), gc.get_objects()
        of_wrappers = {kind for kind in set(map(type, things)) if issubclass(kind, kinds)}  # few of a million things
        _known.update(thing for thing in things if type(thing) in of_wrappers)
    return [wrapper for wrapper in _known if any(id(parameter) in ids for parameter in wrapper.parameters())]


def _see(wrapper: nn.Module, name: str, module: nn.Module | None) -> None:
    """Take note of a wrapper that takes its module. Refuse it if an optimizer has that module's parameters."""
    if module is None or not isinstance(wrapper, tuple(_kinds())):
        return

    def reason() -> str:
        taken_from = [claim for claim in claims() if claim.holds(module.parameters())]
        found = ((claim.door.made, _reason(wrapper, claim.group)) for claim in taken_from)
        return next(
            (f"a {made} trains this module, which would now be in a {text}" for made, text in found if text), ""
        )

    if reason():
        gc.collect()  # an optimizer that nobody holds does not count
        if text := reason():
            raise RuntimeError(f"{text}; {remedy()}")
    _known.add(wrapper)


def _kinds() -> Iterator[type[nn.Module]]:
    """Yield the classes of torch's wrappers; those of modules that were not imported have no instances."""
    yield DistributedDataParallel
    for name in ("FullyShardedDataParallel", "FSDPModule"):
        kind = getattr(sys.modules.get("torch.distributed.fsdp"), name, None)
        if kind is not None:
            yield kind


def _any_reason(wrappers: Sequence[nn.Module], group: dist.ProcessGroup | None) -> str:
    return next(filter(None, (_reason(wrapper, group) for wrapper in wrappers)), "")


def _reason(module: nn.Module, group: dist.ProcessGroup | None) -> str:
    """Return a wrapper's name and why it cannot be trained; empty for a module that can."""
    if module in _ours:
        return ""
    if isinstance(module, DistributedDataParallel):
        return "" if _averages_over_others(module, group) else f"DistributedDataParallel, which {REDUCES}"
    for kind in _kinds():
        if isinstance(module, kind):
            return f"{kind.__name__}, which {HOLDS_SHARDS}"
    names = [kind.__name__ for kind in type(module).__mro__]
    return next((f"{name}, which {reason}" for name, reason in _OF_OTHERS.items() if name in names), "")


def _averages_over_others(wrapper: DistributedDataParallel, group: dist.ProcessGroup | None) -> bool:
    """Return whether it averages over other ranks than ours, such as those of one machine: then nothing is twice."""
    other_group = getattr(wrapper, "process_group", None)
    if other_group is None or not dist.is_initialized():
        return False
    ranks = dist.get_process_group_ranks(other_group)
    ours = dist.get_process_group_ranks(dist.group.WORLD if group is None else group)
    return len(ranks) > 1 and {*ranks}.intersection(ours) == {dist.get_rank()}
