"""The task of a run, from its settings."""

from pathlib import Path

import torch

from laconic.errors import Named, OptionError
from laconic.hyperparameters import near_misses
from laconic.lab.datasets import DATASETS, Dataset, load
from laconic.lab.datasets.augmentation import Augmentation
from laconic.lab.datasets.libsvm import libsvm_rows
from laconic.lab.datasets.mixed import data_of_workers, mixed
from laconic.lab.datasets.sparse import SparseDataset, SparseRows
from laconic.lab.datasets.split import SUBSET_SEED
from laconic.lab.models import build, check_kind, check_scores
from laconic.lab.own_functions import FORM, is_own
from laconic.lab.partitions import BY_LABEL, Partition, partition_of
from laconic.lab.runs.settings import RunSettings
from laconic.lab.shards import Shards
from laconic.lab.tasks import (
    ClassifierTask,
    ConvexTask,
    ExampleTask,
    Logistic,
    OwnKind,
    Quadratic,
    Ridge,
    Shares,
    Task,
)


def task_of(settings: RunSettings) -> Task:
    """Load the data and make the model of a run.

    Raises:
        DatasetError: The data set is missing or not valid.
        OptionError: Options do not fit the data.
    """
    kind = settings.task_kind
    if isinstance(kind, Quadratic):
        return kind.task(Shares(workers=settings.workers, batch_size=settings.batch_size, seed=settings.seed))
    if isinstance(kind, OwnKind):
        return _of_own(kind, settings)
    if isinstance(kind, Logistic | Ridge):
        data = _sparse(settings)
        partition = partition_of(settings.partition, data.train_labels, **settings.of_partition)
        return ConvexTask(kind, data, partition)
    return _of_data(settings)


def _sparse(settings: RunSettings) -> SparseDataset:
    """Return the rows of the data set; those of a libsvm file are never dense."""
    if settings.dataset == "libsvm":
        path = None if settings.data is None else Path(settings.data).expanduser()
        reading = settings.reading
        if "test_data" in reading:
            reading["test_data"] = Path(reading["test_data"]).expanduser()
        rows = libsvm_rows(path, **reading)
        return rows if settings.examples is None else rows.sampled(settings.examples, SUBSET_SEED)
    dataset = load(settings.dataset, settings.data, examples=settings.examples, **settings.reading)
    if dataset.is_text:
        _check_text(settings, dataset)
    return SparseDataset(
        name=dataset.name, train=SparseRows.of_dense(dataset.train_inputs.flatten(1)),
        train_labels=dataset.train_labels, test=SparseRows.of_dense(dataset.test_inputs.flatten(1)),
        test_labels=dataset.test_labels, n_classes=dataset.n_classes,
    )  # fmt: skip


def _of_own(kind: OwnKind, settings: RunSettings) -> ExampleTask:
    own = kind.made(settings.seed)
    targets = own.train[1]
    if settings.partition in BY_LABEL and (targets.dtype != torch.int64 or targets.dim() != 1):
        raise OptionError(
            Named("partition", settings.partition), ": the targets of ", Named("task", kind.text), " are no classes, "
            "one int64 for each example; take resample, fixed or unequal",
        )  # fmt: skip
    partition = partition_of(settings.partition, targets, **settings.of_partition)
    return ExampleTask(kind.text, own, partition, settings.seed)


def examples_of(settings: RunSettings) -> tuple[Dataset, Partition | Shards, tuple[int, ...]]:
    """Return the examples of a run with labels, who has which, and the sizes of its test sets, which follow each other.

    Raises as `task_of`.
    """
    if settings.worker_data:
        names = data_of_workers(settings.worker_data, settings.workers)
        joined = mixed(names, {name: _named_data(name, settings) for name in dict.fromkeys(names)})
        return joined.dataset, joined.shards(settings.batch_size, settings.seed), joined.test_sizes
    dataset = load(settings.dataset, settings.data, examples=settings.examples, **settings.reading)
    partition = partition_of(settings.partition, dataset.train_labels, **settings.of_partition)
    return dataset, partition, ()


def _named_data(text: str, settings: RunSettings) -> Dataset:
    """Return the data set of a text such as "mnist:PATH", "digits" or "mine:data"."""
    name, colon, path = text.partition(":")
    if name in DATASETS:
        allow = {"allow_missing": True} if name == "cifar10" and settings.allow_missing else {}
        return load(name, path if colon else None, examples=settings.examples, **allow)
    if not colon:
        raise OptionError(
            Named("worker_data"), f": {text!r} must be one of {', '.join(sorted(DATASETS))} with its path behind a "
            f"colon, or {FORM} of your own{near_misses(text, list(DATASETS))}",
        )  # fmt: skip
    return load(text, None, examples=settings.examples)


def _of_data(settings: RunSettings) -> ClassifierTask:
    dataset, partition, test_sizes = examples_of(settings)
    check_kind(settings.model, is_text=dataset.is_text)
    _check_text(settings, dataset)
    model = build(settings.model, dataset.input_shape, dataset.n_classes, settings.seed, **settings.of_model)
    if is_own(settings.model):
        check_scores(settings.model, model, dataset.train_inputs, dataset.n_classes)
    return ClassifierTask(
        dataset, model, partition, test_sizes=test_sizes,
        name=settings.title, seed=settings.seed, augmentation=_augmentation(settings, dataset),
    )  # fmt: skip


def _check_text(settings: RunSettings, dataset: Dataset) -> None:
    """Refuse a task of texts for other data, and the other way round."""
    if dataset.is_text != (settings.task_name == "language-model"):
        what, fitting = ("a text", "language-model") if dataset.is_text else ("no text", "classifier")
        raise OptionError(
            Named("task", settings.task_name), f": {dataset.name} is {what}; take ", Named("task", fitting),
            ", or leave it out",
        )  # fmt: skip


def _augmentation(settings: RunSettings, dataset: Dataset) -> Augmentation | None:
    if not settings.augment:
        return None
    if not dataset.background:
        raise OptionError(
            Named("augment", True), f" is for pictures such as those of cifar10; {dataset.name} has none that may be "
            "mirrored, so leave it out",
        )  # fmt: skip
    return Augmentation(n_examples=len(dataset.train_labels), seed=settings.seed, background=dataset.background)
