"""What the ranks of a `DistributedOptimizer` must have in common: parameters, the inner optimizer and its options.

Names have the form of `drivers/distributed/agreement.py`: "parameter group 0/lr".
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.drivers.distributed.agreement import Scalar
from laconic.drivers.distributed.channel import Channel
from laconic.errors import SetupError
from laconic.training.flat_parameters import FlatParameters

# How an optimizer computes, and not what: unlike machines may need other values.
_MAY_DIFFER = {"params", "param_names", "foreach", "fused", "capturable"}
_SAMPLE = 64  # first elements of a parameter that are compared


def agreed_settings(inner: Optimizer, flat: FlatParameters, fixed: Sequence[Tensor]) -> dict[str, Scalar]:
    """Return what must be equal on all ranks, by name, as data that JSON can hold.

    Args:
        inner: the user's optimizer.
        flat: its trainable parameters.
        fixed: frozen parameters and buffers.
    """
    kind = type(inner)
    found: dict[str, Scalar] = {"inner": f"{kind.__module__}.{kind.__qualname__}"}
    found |= group_options(inner)
    parameters = zip(flat.names, flat.parameters, flat.groups, strict=True)
    for number, (name, parameter, group) in enumerate(parameters):
        found[f"parameter {number}"] = f"{name!r} {tuple(parameter.shape)} {parameter.dtype}, group {group}"
    for number, tensor in enumerate(fixed):
        found[f"frozen parameter or buffer {number}"] = f"{tuple(tensor.shape)} {tensor.dtype}"
    return found | _state_of(inner)


def group_options(inner: Optimizer) -> dict[str, Scalar]:
    """Return the options of all parameter groups, such as learning rates, by group and name."""
    return {
        f"parameter group {number}/{name}": _as_scalar(value)
        for number, group in enumerate(inner.param_groups)
        for name, value in sorted(group.items())
        if name not in _MAY_DIFFER
    }


def _as_scalar(value: object) -> Scalar:
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    if isinstance(value, Tensor) or hasattr(value, "dtype"):  # one number of torch or numpy, such as a learning rate
        numbers = torch.as_tensor(value).detach().cpu()
        number: Scalar = numbers.item() if numbers.numel() == 1 else f"tensor {tuple(numbers.shape)}"
        return number
    if isinstance(value, (list, tuple)):
        return f"({', '.join(str(_as_scalar(element)) for element in value)})"
    return type(value).__qualname__


def _state_of(inner: Optimizer) -> dict[str, Scalar]:
    """Return which state the optimizer has, and for how many parameters: it may be loaded on one rank only."""
    names = sorted({str(name) for state in inner.state.values() if isinstance(state, dict) for name in state})
    steps = [_as_scalar(state["step"]) for state in inner.state.values() if isinstance(state, dict) and "step" in state]
    having = sum(bool(state) for state in inner.state.values())
    return {
        "state of inner": f"{', '.join(names)} of {having} parameters" if having else "none",
        **({"step of inner": max(steps, key=str)} if steps else {}),
    }


def check_order(flat: FlatParameters, channel: Channel) -> None:
    """Refuse parameters that another rank lists in another order, where only their values can show it. Collective.

    Ranks that have made their models from one seed have equal values, in one order. Ranks that have not differ in all.

    Args:
        flat: the parameters, with this rank's own initial values.
        channel: the connection to the other ranks.

    Raises:
        SetupError: naming a parameter that has another one's values.
    """
    samples = [
        zlib.crc32(tensor.detach().reshape(-1)[:_SAMPLE].double().cpu().numpy().tobytes()) for tensor in flat.parameters
    ]
    text = zlib.crc32(repr(samples).encode())
    purpose = "for the order of its parameters"
    if len(set(channel.gather(text, purpose, int, max_bytes=16))) == 1:
        return
    n = len(samples)
    gathered: list[Any] = channel.gather(samples, purpose, tuple([range(1 << 32)] * n), max_bytes=2 + 12 * n)
    of_rank_0 = gathered[0]
    n_of, place_of = Counter(of_rank_0), {sample: number for number, sample in enumerate(of_rank_0)}
    for rank, own in enumerate(gathered):
        n_of_own = Counter(own)
        for number, sample in enumerate(own):
            if sample != of_rank_0[number] and n_of[sample] == n_of_own[sample] == 1:
                raise SetupError(
                    f"rank 0 and rank {rank} list their parameters in another order: parameter {number} "
                    f"({flat.names[number]!r}) of rank {rank} has the values of rank 0's parameter "
                    f"{place_of[sample]}; list them in one order, and pass model=model to have names compared"
                )
