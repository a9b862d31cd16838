"""Which optimizers can be inside: those whose step is one step along one gradient."""

import inspect

from torch.optim import ASGD, LBFGS, Optimizer, SparseAdam

from laconic.contract import Algorithm
from laconic.drivers.distributed.door import door
from laconic.training.wrapping import OptimizerAround

_EXCHANGING_PACKAGES = {"horovod", "bagua", "byteps", "bluefog", "hivemind", "deepspeed", "fairscale"}
"""Their optimizers send gradients or parameters themselves."""


def check_inner(inner: Optimizer, algorithm: Algorithm, local_steps: int) -> None:
    """Raise TypeError or ValueError for an optimizer that a method cannot use in this way."""
    name = door().optimizer
    if not isinstance(inner, Optimizer):
        raise TypeError(f"{name}={inner!r:.80} must be a torch.optim.Optimizer")
    kind = type(inner)
    package = kind.__module__.split(".")[0]
    if isinstance(inner, OptimizerAround):
        raise TypeError(f"{name}: it is a {kind.__name__} already, which exchanges gradients; wrap an optimizer once")
    if package in _EXCHANGING_PACKAGES or kind.__module__.startswith("torch.distributed.optim"):
        raise TypeError(
            f"{name}: {kind.__module__}.{kind.__name__} sends gradients or parameters itself; give the plain optimizer"
        )
    if package == "accelerate":
        raise TypeError(
            f"{name}: {kind.__name__} leaves steps out by itself; wrap the plain optimizer, then prepare: "
            "opt = accelerator.prepare(laconic.DistributedOptimizer(inner, ...))"
        )
    if isinstance(inner, SparseAdam):
        raise ValueError(
            f"{name}=SparseAdam takes sparse gradients alone, and what an exchange returns is dense; use "
            "torch.optim.Adam, with sparse=False in the layers or with sparse_gradients='dense'"
        )
    if evaluates_again(inner):
        raise ValueError(
            f"{name}={kind.__name__} evaluates its closure several times a step, and a round exchanges one gradient; "
            "use torch.optim.Adam or SGD: they take the closure that is there, opt.step(closure)"
        )
    steps_alike = algorithm.consumes == "gradient" and algorithm.returns == "direction" and local_steps == 1
    if not steps_alike and _keeps_second_weights(inner):
        raise ValueError(
            f"{name}={kind.__name__} keeps second weights beside the parameters, and "
            + (f"local_steps={local_steps}" if local_steps > 1 else f"{algorithm.name}, which exchanges parameters,")
            + " would leave them behind, other ones on each rank; use it with local_steps=1 and a method that returns "
            "a direction, such as laconic.CompSkip()"
        )


def evaluates_again(inner: Optimizer) -> bool:
    """Return whether a step evaluates its closure several times, or cannot be taken without arguments."""
    has_two_parts = hasattr(inner, "first_step") and hasattr(inner, "second_step")
    return isinstance(inner, LBFGS) or has_two_parts or _needs_arguments(inner)


def _keeps_second_weights(inner: Optimizer) -> bool:
    """Return whether the optimizer holds further weights, as those do that switch between `train` and `eval`."""
    switches = callable(getattr(inner, "train", None)) and callable(getattr(inner, "eval", None))
    return switches or isinstance(inner, ASGD) or any(kind.__name__ == "Lookahead" for kind in type(inner).__mro__)


def _needs_arguments(inner: Optimizer) -> bool:
    """Return whether `step` cannot be called without arguments."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    _, *parameters = inspect.signature(type(inner).step).parameters.values()
    return any(each.default is inspect.Parameter.empty and each.kind not in optional for each in parameters)
