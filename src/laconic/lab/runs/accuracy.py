"""How good the shared model is, or the workers' mean model and each worker's own: test accuracy, gap or metric."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from laconic.contract import Algorithm
from laconic.lab.runs.experiment import Experiment
from laconic.lab.tasks import Judgement
from laconic.protocol.ring_allreduce import ring_sum
from laconic.training.consensus import consensus_distance, mean_parameters, squared_distance
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.flat_parameters import FlatParameters
from laconic.training.simulation import Simulation


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracies as shares of the test examples, and what else a task measures."""

    test: float | None
    """Accuracy of the model, or of the mean model if the workers' models differ; None where nothing is classified."""
    own: tuple[float, ...] = ()
    """Accuracy of each worker's model; empty if they are equal, or nothing is classified."""
    consensus_distance: float | None = None
    """sqrt(1/N sum_n ||x_n - xbar||^2); None if the workers' models are equal."""
    gap: float | None = None
    """f(x) - f* of the model, or of the mean model."""
    metric: float | None = None
    """The figure of a user's own task, of the same model."""

    @classmethod
    def of(cls, judged: Judgement) -> "Accuracy":
        """Return that of one model for all."""
        return cls(test=judged.accuracy, gap=judged.gap, metric=judged.metric)


def models_differ(algorithm: Algorithm) -> bool:
    """Return whether each worker ends with its own model. With an asynchronous server the model is the server's."""
    return algorithm.is_decentralized and not algorithm.replicas_equal


@torch.no_grad()
def in_simulation(simulation: Simulation, experiment: Experiment) -> Accuracy:
    """Return the accuracy at the parameters of the last exchange."""
    if not models_differ(experiment.algorithm):
        return Accuracy.of(experiment.judge())
    models = [simulation.parameters_of(rank) for rank in range(simulation.n_workers)]
    mean = ring_sum(models) / len(models)  # in the order of the all-reduce, so that processes get the same bits
    return _summary(
        _judged_at(mean, simulation.flat, experiment),
        [_judged_at(model, simulation.flat, experiment).accuracy for model in models],
        [squared_distance(model, mean) for model in models],
    )


_MAX_BYTES = 96  # three numbers


@torch.no_grad()
def over_processes(opt: DistributedOptimizer, experiment: Experiment, exchanged: Tensor) -> Accuracy:
    """Return the accuracy at the parameters of the last exchange. Collective; only rank 0's result is valid.

    Args:
        opt: This rank's optimizer.
        experiment: The model and the test examples.
        exchanged: (d,) this rank's parameters of the last exchange.
    """
    with _mean_buffers(opt, experiment):
        return _over_processes(opt, experiment, exchanged)


@contextmanager
def _mean_buffers(opt: DistributedOptimizer, experiment: Experiment) -> Iterator[None]:
    """Give the model the mean of all workers' batch-norm statistics, as a simulation shows it. Collective."""
    buffers = list(experiment.model.buffers())
    own = [buffer.clone() for buffer in buffers]
    opt.share_buffers("average")
    try:
        yield
    finally:
        for buffer, values in zip(buffers, own, strict=True):
            buffer.copy_(values)


def _over_processes(opt: DistributedOptimizer, experiment: Experiment, exchanged: Tensor) -> Accuracy:
    channel, what = opt.driver.channel, "for its accuracy"
    if models_differ(experiment.algorithm):
        mean = mean_parameters(opt, exchanged)
        own = _judged_at(exchanged, opt.flat, experiment).accuracy
        gathered: list[Any] = channel.gather(
            [own, squared_distance(exchanged, mean)], what, (float | None, float), _MAX_BYTES
        )
        of_mean = _judged_at(mean, opt.flat, experiment) if channel.rank == 0 else Judgement()
        return _summary(of_mean, [accuracy for accuracy, _ in gathered], [square for _, square in gathered])
    if experiment.algorithm.is_asynchronous:
        model = None if opt.server_model is None or not opt.serves_only else opt.server_model.flat.values()
        judged = None if model is None else _judged_at(model, opt.flat, experiment)
        if not experiment.settings.task_columns:
            accuracies = channel.gather(None if judged is None else judged.accuracy, what, float | None, _MAX_BYTES)
            return Accuracy(test=next(accuracy for accuracy in accuracies if accuracy is not None))
        figures = [] if judged is None else [judged.accuracy, judged.gap, judged.metric]
        found = channel.gather(figures, what, [float | None], _MAX_BYTES)
        accuracy, gap, metric = next(each for each in found if each)
        return Accuracy(test=accuracy, gap=gap, metric=metric)
    return Accuracy.of(_judged_at(exchanged, opt.flat, experiment)) if channel.rank == 0 else Accuracy(test=None)


def _summary(of_mean: Judgement, own: list[float | None], squares: list[float]) -> Accuracy:
    known = tuple(accuracy for accuracy in own if accuracy is not None)
    return replace(Accuracy.of(of_mean), own=known, consensus_distance=consensus_distance(squares))


def _judged_at(parameters: Tensor, flat: FlatParameters, experiment: Experiment) -> Judgement:
    """Return how good the model is at `parameters` (d,), and restore the model's own."""
    here = flat.values()
    flat.set_values(parameters)
    judged = experiment.judge()
    flat.set_values(here)
    return judged
