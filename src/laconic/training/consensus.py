"""Workers whose models differ: the mean over all ranks, and the distance to it."""

import math
from collections.abc import Sequence

from torch import Tensor

from laconic.protocol.ring_allreduce import ring_bytes
from laconic.training.distributed_optimizer import DistributedOptimizer


def mean_parameters(opt: DistributedOptimizer, parameters: Tensor | None = None) -> Tensor:
    """Return the mean of all ranks' parameters, with the same bits on every rank. Collective.

    Evaluate this model if each worker has its own, as with `DSGD`; `opt.flat.set_values` loads a vector into the model.
    It is one all-reduce, which is not part of the method: its bytes are in `traffic.control_bytes` and in no meter.

    Args:
        opt: this rank's optimizer.
        parameters: this rank's parameters (d,); by default those that its model has now.

    Returns:
        The mean, (d,).

    Raises:
        TypeError: if `opt` or `parameters` is something else.
        ValueError: if a rank only serves, and has no model, or if `parameters` are not as many as the optimizer has.
        PeerLostError: if a rank is lost.
    """
    if not isinstance(opt, DistributedOptimizer):
        raise TypeError(f"mean_parameters: opt={type(opt).__name__} must be a laconic.DistributedOptimizer")
    if parameters is not None:
        _check_like(parameters, opt)
    layout, channel = opt.driver.layout, opt.driver.channel
    if layout.n_nodes != layout.n_workers:
        raise ValueError(
            f"mean_parameters: with layout={layout.name!r} a rank trains no model, so there is no mean over all; "
            f"{opt.algorithm.name} keeps workers' models equal, or one model at the server; evaluate that"
        )
    total = opt.flat.values() if parameters is None else parameters.detach().clone()
    channel.all_reduce(total, f"mean_parameters() after round {opt.driver.rounds}")
    channel.control_bytes += 2 * ring_bytes(total.numel(), channel.size, total.element_size())
    return total / channel.size


def squared_distance(one: Tensor, other: Tensor) -> float:
    """Return ||one - other||^2 of two vectors (d,), in float64."""
    return float((one.double() - other.double()).square().sum())


def consensus_distance(squares: Sequence[float]) -> float:
    """Return sqrt(1/N sum_n ||x_n - xbar||^2), given the workers' squared distances to the mean model.

    Kong, Lin, Koloskova, Jaggi, Stich: Consensus Control for Decentralized Deep Learning, ICML 2021, section 3.
    """
    return math.sqrt(math.fsum(squares) / len(squares))


def _check_like(parameters: Tensor, opt: DistributedOptimizer) -> None:
    if not isinstance(parameters, Tensor):
        raise TypeError(f"mean_parameters: parameters={type(parameters).__name__} must be a tensor")
    given, expected = (tuple(parameters.shape), parameters.dtype), ((opt.flat.d,), opt.flat.dtype)
    if given != expected:
        raise ValueError(
            f"mean_parameters: parameters of shape {given[0]}, {given[1]} must have shape {expected[0]}, "
            f"{expected[1]}, as opt.flat.values() has"
        )
