"""Workers whose models differ: their mean over all ranks, and how far they are apart."""

import math
from collections.abc import Sequence

from torch import Tensor

from laconic.protocol.ring_allreduce import ring_bytes
from laconic.training.distributed_optimizer import DistributedOptimizer


def mean_parameters(opt: DistributedOptimizer, parameters: Tensor | None = None) -> Tensor:
    """The mean of all ranks' parameters, (d,), the same bits on every rank. Collective: every rank must call it.

    What to evaluate where each worker has a model of its own, as with `DSGD`; `opt.flat.set_values` puts a vector in
    place. parameters: this rank's, (d,); None for those that its model has now.
    It is one all-reduce, which is no part of the method: its bytes are in `traffic.control_bytes` and in no meter.
    Raises ValueError where a rank only serves, and has no model to add; PeerLostError.
    """
    layout, channel = opt.driver.layout, opt.driver.channel
    if layout.n_nodes != layout.n_workers:
        raise ValueError(
            f"mean_parameters: with layout={layout.name!r} a rank trains no model, so there is no mean over all; "
            f"{opt.algorithm.name} keeps workers' models equal or one at the server: evaluate that"
        )
    total = opt.flat.values() if parameters is None else parameters.detach().clone()
    channel.all_reduce(total, f"for the mean of the models after round {opt.driver.rounds}")
    channel.control_bytes += 2 * ring_bytes(total.numel(), channel.size, total.element_size())
    return total / channel.size


def squared_distance(one: Tensor, other: Tensor) -> float:
    """||one - other||^2 of two vectors (d,), in float64."""
    return float((one.double() - other.double()).square().sum())


def consensus_distance(squares: Sequence[float]) -> float:
    """sqrt(1/N sum_n ||x_n - xbar||^2), from the workers' squared distances to the mean model.

    Kong, Lin, Koloskova, Jaggi, Stich: Consensus Control for Decentralized Deep Learning, ICML 2021, section 3.
    """
    return math.sqrt(math.fsum(squares) / len(squares))
