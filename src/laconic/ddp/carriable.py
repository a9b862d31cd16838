"""Which methods a communication hook can carry: those that turn gradients into a direction, with nothing else."""

from torch import nn
from torch.optim import Optimizer

from laconic.contract import Algorithm
from laconic.ddp.settings import Settings
from laconic.protocol.layout import has_dedicated_server
from laconic.training.automatic import Automatic, is_auto

_SAME_BITS = ("exact", "layers")  # no slice ends within a parameter


def why_not(algorithm: Algorithm, *, knows_lr: bool = False) -> str:
    """Return why a hook alone cannot carry a method; empty if it can. `knows_lr`: whether it is told the rate."""
    if algorithm.is_asynchronous:
        return "its server takes each gradient as it arrives, and no rank waits for another"
    reasons = {
        "its server holds the model and steps it": algorithm.server_steps,
        "it evaluates each mini-batch at two points": algorithm.second_gradient,
        "it sends the change that local steps made": algorithm.consumes == "change",
        "it returns parameters in place of a direction": algorithm.returns != "direction",
        "it reads the learning rate": algorithm.reads_lr and not knows_lr,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def overlaps(algorithm: Algorithm, settings: Settings) -> bool:
    """Return whether a method's rounds run over slices of the model: by default where that gives the same bits."""
    if why_not(algorithm) or settings.local_steps != 1:
        return False
    return algorithm.over_slices in _SAME_BITS if settings.overlap is None else settings.overlap


def goes_by_step(algorithm: Algorithm, settings: Settings) -> bool:
    """Return whether the optimizer's step exchanges, and not the backward pass."""
    return settings.optimizer is not None and not overlaps(algorithm, settings)


def check_trained(model: nn.Module, optimizer: Optimizer | None) -> None:
    """Raise ValueError if nothing is trained, or an optimizer leaves out what ranks would then train apart."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("model: none of its parameters is trained (requires_grad); thaw those that shall be, before")
    if optimizer is None:
        return
    listed = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, parameter in trained if id(parameter) not in listed]
    if missing:
        raise ValueError(
            f"optimizer: it does not have {missing[0]!r} ({len(missing)} of {len(trained)} parameters that are "
            "trained); give one that has all. Where several optimizers train one model, attach without optimizer= a "
            "method that a hook can carry"
        )


def check_attachable(method: object, settings: Settings) -> Automatic | None:
    """Return what chooses the method; None if one is given.

    Raises:
        ValueError: it cannot be attached with these settings, or one that may be chosen.
        TypeError: for other types.
    """
    settings.check()
    if not is_auto(method, settings.allowed):
        check_carriable(method, settings, ', or "auto"')
        return None
    automatic = Automatic(settings.allowed, settings.layout, timeout_s=settings.timeout_s, nodes=settings.nodes)
    for each in automatic.allowed:
        check_carriable(each, settings)
    return automatic


def check_carriable(algorithm: object, settings: Settings, or_what: str = "") -> None:
    """Raise ValueError for a method that cannot be attached with these settings; TypeError for other types.

    `or_what`: what else the argument may be.
    """
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f"method={algorithm!r:.80} must be an algorithm such as laconic.ECSGD(){or_what}")
    settings.check()
    name, reason = algorithm.name, why_not(algorithm)
    if algorithm.is_asynchronous:
        raise ValueError(
            f"method: {name} does not go with DistributedDataParallel: {reason}; use laconic.DistributedOptimizer with "
            "the plain module"
        )
    if has_dedicated_server(settings.layout, by_arrival=False):
        raise ValueError(
            f'layout="{settings.layout}": its last rank trains nothing, and DistributedDataParallel trains on every '
            'rank; use "rank0" or "auto"'
        )
    if settings.optimizer is None and settings.local_steps != 1:
        raise ValueError(f"local_steps={settings.local_steps} are steps of an optimizer; pass optimizer=")
    if settings.optimizer is None and reason:
        raise ValueError(
            f"method: a communication hook cannot carry {name}: {reason}; pass optimizer=, whose step() then exchanges"
        )
    check_overlap(algorithm, settings)


def check_overlap(algorithm: Algorithm, settings: Settings) -> None:
    """Raise ValueError for a method that is to be exchanged in slices, and cannot be."""
    name = algorithm.name
    if settings.overlap and (reason := why_not(algorithm)):
        raise ValueError(f"overlap=True: {name} is exchanged in the optimizer's step: {reason}; leave it out")
    if settings.overlap and algorithm.over_slices not in _SAME_BITS:
        slots = {**algorithm.worker_slots, **algorithm.server_slots}
        if algorithm.over_slices == "refused" or any(slot.length != "d" for slot in slots.values()):
            raise ValueError(
                f"overlap=True: {name} looks at the full vector, or remembers something of it; leave it out"
            )
