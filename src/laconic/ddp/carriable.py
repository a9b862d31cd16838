"""Which methods a communication hook can carry: those that turn gradients into a direction, with nothing else."""

from laconic.contract import Algorithm
from laconic.protocol.layout import has_dedicated_server


def why_not(algorithm: Algorithm) -> str:
    """Return why a hook alone cannot carry a method; empty if it can."""
    if algorithm.is_asynchronous:
        return "its server takes each gradient as it arrives, and no rank waits for another"
    reasons = {
        "its server holds the model and steps it": algorithm.server_steps,
        "it evaluates each mini-batch at two points": algorithm.second_gradient,
        "it sends the change that local steps made": algorithm.consumes == "change",
        "it returns parameters in place of a direction": algorithm.returns != "direction",
        "it reads the learning rate": algorithm.reads_lr,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def check_carriable(algorithm: Algorithm, *, has_optimizer: bool, layout: str) -> None:
    """Raise ValueError for a method that cannot be attached, or not without an optimizer; TypeError for no method."""
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f"method={algorithm!r:.80} must be an algorithm such as laconic.ECSGD()")
    reason = why_not(algorithm)
    if algorithm.is_asynchronous:
        raise ValueError(
            f"method: {algorithm.name} does not go with DistributedDataParallel: {reason}; use "
            "laconic.DistributedOptimizer with the plain module"
        )
    if has_dedicated_server(layout, by_arrival=False):
        raise ValueError(
            f'layout="{layout}": its last rank trains nothing, and DistributedDataParallel trains on every rank; use '
            '"rank0" or "auto"'
        )
    if reason and not has_optimizer:
        raise ValueError(
            f"method: a communication hook cannot carry {algorithm.name}: {reason}; pass optimizer=, whose step() then "
            "exchanges"
        )
