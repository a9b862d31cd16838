"""Which methods can be attached to a sharded model, and when they exchange."""

from laconic.contract import Algorithm
from laconic.ddp.carriable import check_overlap, why_not
from laconic.ddp.settings import Settings
from laconic.protocol.layout import has_dedicated_server


def check_carriable(algorithm: Algorithm, settings: Settings) -> None:
    """Raise ValueError for a method that cannot be attached to a sharded model."""
    settings.check()
    if refusal := _refusal(algorithm):
        raise ValueError(f"method: {algorithm.name} does not go with fully_shard: {refusal}")
    if settings.optimizer is None and settings.local_steps != 1:
        raise ValueError(f"local_steps={settings.local_steps} are steps of an optimizer; pass optimizer=")
    if settings.optimizer is None and (reason := why_not(algorithm)):
        raise ValueError(f"method: a backward pass alone cannot carry {algorithm.name}: {reason}; pass optimizer=")
    check_overlap(algorithm, settings)
    if has_dedicated_server(settings.layout, by_arrival=False):
        raise ValueError(f'layout="{settings.layout}": its last rank trains nothing; use "rank0" or "auto"')


def _refusal(algorithm: Algorithm) -> str:
    """Return why no sharded model can be trained by a method, and what to take; empty if one can."""
    if algorithm.is_asynchronous:
        return (
            "its server takes each gradient as it arrives, and the ranks of a node step together; take diloco with "
            "local_steps=, whose nodes wait for each other once in so many steps"
        )
    if algorithm.server_steps:
        return (
            "its server holds the model and steps it, and here the nodes' own optimizers do; take sgd, which gives "
            "them the same mean"
        )
    if algorithm.second_gradient:
        return (
            "it evaluates each mini-batch at two points, and a hook is handed one gradient; take lag, which skips by "
            "one, or sparse, which sends the largest elements"
        )
    return ""


def goes_by_step(algorithm: Algorithm, settings: Settings) -> bool:
    """Return whether the optimizer's step exchanges, and not the backward pass."""
    return settings.local_steps != 1 or bool(why_not(algorithm, knows_lr=True))
