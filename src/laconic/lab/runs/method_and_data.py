"""The options of a run that say which method trains which model on which data, and who serves.

Importing this file loads no torch, since the flags of `laconic run` are made from it.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from laconic.errors import Named, OptionError
from laconic.hyperparameters import as_settings, from_text
from laconic.lab.defaults import DATASET_NAMES, MODEL_NAMES, TASK_NAMES
from laconic.lab.options import PURE_NUMBER, OptionGroup, listed, option
from laconic.lab.own_functions import FORM, is_own
from laconic.lab.runs.option_texts import text_encoding
from laconic.protocol.layout import LAYOUTS

OF_READING = (
    "test_data", "label_column", "drop_columns", "header", "missing", "encoding", "index_base", "allow_missing",
    "window", "image_size",
)  # fmt: skip
_OF_MODEL = ("width",)
_OF_DATA = ("dataset", "data", "worker_data", "examples", "augment", *OF_READING)


@dataclass(frozen=True, kw_only=True)
class MethodAndData(OptionGroup):
    """The method, the data and the model of a run."""

    algorithm: str = option(..., "The method: a name that `laconic list` prints.", short="-a", names="methods")
    set: dict[str, str] = option(
        {}, "Set one hyper-parameter of the method. Can be given several times.", metavar="KEY=VALUE"
    )
    workers: int = option(
        4, "The number of workers. Under torchrun it is the number of processes.", within="[1, 65536]", unit="workers"
    )
    driver: str = option(
        "simulated", "Where workers run: simulated (all in this process) or processes.",
        choices=("simulated", "processes"),
    )  # fmt: skip
    layout: str = option("auto", f"Which rank serves: {listed(LAYOUTS)}.", choices=LAYOUTS)
    task: str | None = option(
        None, f"What is trained: {listed(TASK_NAMES)}; or {FORM} of your own. A task owns data, model, loss and "
        "metric.", choices=TASK_NAMES, own=True, shown="classifier, or language-model for a text",
    )  # fmt: skip
    task_set: dict[str, str] = option(
        {}, "Set one number of the task, such as noise=2 of quadratic. Can be given several times.",
        metavar="KEY=VALUE",
    )  # fmt: skip
    dataset: str = option(
        "digits", f"The data set: {listed(DATASET_NAMES)}; or {FORM} of your own.", choices=DATASET_NAMES, own=True
    )
    data: str | None = option(None, "The folder or file of the data set. The digits need none.", metavar="PATH")
    worker_data: dict[str, str] = option(
        {}, "The data set of some workers: even=cifar10:PATH, odd=mnist:PATH, or ranks such as 0-4=NAME:PATH. It takes "
        "the place of --dataset. Can be given several times.", metavar="WHO=NAME:PATH",
    )  # fmt: skip
    test_data: str | None = option(
        None, "A file of test examples, for csv and libsvm; without it one in five is tested.", metavar="FILE"
    )
    label_column: str | None = option(
        None, "The column of the class in a csv file: first, last, a name or a number from 1.", metavar="COLUMN",
        shown="last",
    )  # fmt: skip
    drop_columns: str | None = option(
        None, "Columns of a csv file to leave out: names or numbers, or none.", metavar="COLUMNS",
        shown="row numbers without a name",
    )  # fmt: skip
    header: str | None = option(
        None, "Whether the first row of a csv file names its columns: auto, yes or no.", choices=("auto", "yes", "no"),
        shown="auto",
    )  # fmt: skip
    missing: str | None = option(
        None, "What to do about missing values in a csv file: refuse them, drop their rows, or put the mean there.",
        choices=("refuse", "drop", "mean"), shown="refuse",
    )  # fmt: skip
    encoding: str | None = option(
        None,
        "The encoding of a csv file or text, such as latin-1.",
        metavar="NAME",
        shown="UTF-8",
        reads=text_encoding,
    )
    index_base: int | None = option(
        None, "From what the features of a libsvm file count: 1 or 0.", within="[0, 1]", unit=PURE_NUMBER, shown="1"
    )
    window: int | None = option(
        None, "The number of characters in a window of a text.", within="[1, inf)", unit="characters", shown="64"
    )
    image_size: int | None = option(
        None, "The pixels of height and width that pictures of an image-folder are scaled and cropped to.",
        within="[1, inf)", unit="pixels", shown="their own, if all have one size",
    )  # fmt: skip
    allow_missing: bool | None = option(
        None, "Train on the batches of cifar10 that are there, if some are missing.", shown="no"
    )
    examples: int | None = option(
        None, "How many train examples are used: a random choice, the same in every run.", within="[1, inf)",
        unit="examples", metavar="N", shown="all",
    )  # fmt: skip
    augment: bool | None = option(
        None, "Shift train images by up to 4 pixels and mirror half of them, anew in each epoch.", shown="no"
    )
    model: str = option(
        "mlp", f"The model: {listed(MODEL_NAMES)}; or {FORM} of your own.", choices=MODEL_NAMES, own=True
    )
    width: int | None = option(
        None, "The width of the model: hidden units of mlp, first channels of resnet18 and resnet50, size of the "
        "transformer's vectors.", within="[1, inf)", unit=PURE_NUMBER, shown="512, 64 and 128",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            OptionError: An option is wrong, or is that of the reader of another data set, or of another model.
        """
        super().__post_init__()
        self._check_reading()
        self._check_task()

    def _check_task(self) -> None:
        """Refuse numbers that the task does not have, and options of data where it needs none."""
        kind = self.task_kind
        useless = (*(() if kind.takes_data else _OF_DATA), *(() if kind.takes_model else ("model", *_OF_MODEL)))
        for field in dataclasses.fields(MethodAndData):
            if field.name in useless and getattr(self, field.name) not in (field.default, {}):
                raise OptionError(
                    Named(field.name, getattr(self, field.name)), " is not for ",
                    Named("task", self.task_name), ", which has its own; leave it out",
                )  # fmt: skip

    @property
    def task_name(self) -> str:
        """The task, chosen or that of the data."""
        return self.task or ("language-model" if self.dataset == "text" else "classifier")

    @cached_property
    def task_kind(self) -> Any:  # noqa: ANN401 - a dataclass of `laconic.lab.tasks`
        """The task with its numbers, made once."""
        from laconic.lab.tasks import TASKS, OwnKind

        if is_own(self.task):
            return OwnKind(text=self.task_name, settings=self.task_set)
        return from_text(TASKS[self.task_name], self.task_set, self.task_name)

    @property
    def title(self) -> str:
        """What is trained on what, such as "digits, mlp"."""
        data = " and ".join(dict.fromkeys(text.partition(":")[0] for text in self.worker_data.values()))
        parts = [data or self.dataset] if self.task_kind.takes_data else []
        return ", ".join([*parts, self.model if self.task_kind.takes_model else self.task_name])

    @property
    def task_settings(self) -> dict[str, str]:
        """The numbers of the task, with their defaults, as the texts that `task_set` takes."""
        return self.task_set if is_own(self.task) else as_settings(self.task_kind)

    @property
    def task_columns(self) -> tuple[str, ...]:
        """The columns of `metrics.csv` that only this task fills."""
        columns: tuple[str, ...] = self.task_kind.columns
        return columns

    @property
    def has_examples(self) -> bool:
        """Whether the task has examples, which workers share."""
        return bool(self.task_kind.has_examples)

    def _check_reading(self) -> None:
        from laconic.lab.datasets import check_reading
        from laconic.lab.models import check_choices

        if not self.worker_data:
            check_reading(self.dataset, self.reading)
        check_choices(self.model, self.of_model)

    @property
    def reading(self) -> dict[str, Any]:
        """The options that say how the data set is read, where they are given."""
        return {name: getattr(self, name) for name in OF_READING if getattr(self, name) is not None}

    @property
    def of_model(self) -> dict[str, int]:
        """The options of the model, where they are given."""
        return {name: getattr(self, name) for name in _OF_MODEL if getattr(self, name) is not None}
