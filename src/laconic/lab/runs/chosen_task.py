"""The task of a run, from its settings."""

from laconic.errors import Named, OptionError
from laconic.lab.datasets import Dataset, load
from laconic.lab.datasets.augmentation import Augmentation
from laconic.lab.models import build, check_kind
from laconic.lab.partitions import partition_of
from laconic.lab.runs.settings import RunSettings
from laconic.lab.tasks import ClassifierTask, Quadratic, Shares, Task


def task_of(settings: RunSettings) -> Task:
    """Load the data and make the model of a run.

    Raises:
        DatasetError: The data set is missing or not valid.
        OptionError: Options do not fit the data.
    """
    kind = settings.task_kind
    if isinstance(kind, Quadratic):
        return kind.task(Shares(workers=settings.workers, batch_size=settings.batch_size, seed=settings.seed))
    return _of_examples(settings)


def _of_examples(settings: RunSettings) -> ClassifierTask:
    dataset = load(settings.dataset, settings.data, examples=settings.examples, **settings.reading)
    check_kind(settings.model, is_text=dataset.is_text)
    _check_text(settings, dataset)
    model = build(settings.model, dataset.input_shape, dataset.n_classes, settings.seed, **settings.of_model)
    return ClassifierTask(
        dataset, model, partition_of(settings.partition, dataset.train_labels, **settings.of_partition),
        name=f"{settings.dataset}, {settings.model}", seed=settings.seed, augmentation=_augmentation(settings, dataset),
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
