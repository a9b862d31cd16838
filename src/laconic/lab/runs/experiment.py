"""What each rank of a run computes: the losses of its task, and how good the model is."""

import math

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from laconic.errors import Named, OptionError
from laconic.lab.models import spec_of
from laconic.lab.runs.chosen_task import task_of
from laconic.lab.runs.device import CPU, use_device
from laconic.lab.runs.divergence import Guess
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.warm_up import with_warm_up
from laconic.lab.tasks import Judgement
from laconic.lab.tasks.theory import theorem_learning_rate
from laconic.protocol.layout import choose_layout
from laconic.training.inner_checks import check_inner


class Experiment:
    """Task, method and optimizer of one run, the same on every rank."""

    def __init__(self, settings: RunSettings) -> None:
        """Load the data and make the model.

        Raises:
            DatasetError: The data set is missing or not valid.
            ValueError: Sizes or settings do not fit the data or the algorithm.
        """
        self.settings = settings
        self.task = task_of(settings)
        self.model = self.task.model
        self.steps_per_epoch = (
            self.task.steps_per_epoch
            * (settings.workers if settings.has_examples else settings.takes_part)
            // settings.takes_part
        )  # in which those that take part have as many examples as there are
        self.start_gap = self.task.judge().gap if "gap" in settings.task_columns else None
        """f(x) - f* before the first step, where the minimum is known."""
        self.steps = self.steps_per_epoch * settings.epochs
        self.algorithm = with_warm_up(settings, self.steps_per_epoch)
        self.learning_rate = self._theorem_learning_rate() if settings.lr == "theory" else settings.learning_rate
        """The learning rate before warm-up and schedule."""
        self.inner: Optimizer = settings.inner_kind.made(self.model, self.learning_rate, settings.weight_decay)
        check_inner(self.inner, self.algorithm, settings.local_steps)
        self.device = CPU
        """Where the model, and the examples that it gets, are."""
        self.spec = spec_of(self.model)
        self.algorithm.check_size(self.spec, settings.workers)
        if settings.fault_file is not None:
            layout = choose_layout(settings.layout, self.algorithm, self.spec, n_nodes=settings.n_processes)
            settings.fault_file.check(self.algorithm, layout, settings.workers, self.spec, self.rounds)

    @property
    def layout(self) -> str:
        """The layout of a run, with servers for "auto", so that its bytes compare with those of more workers."""
        settings = self.settings
        return choose_layout(settings.layout, self.algorithm, self.spec, n_nodes=settings.n_processes).name

    def _theorem_learning_rate(self) -> float:
        settings, bounds = self.settings, self.task.bounds()
        if bounds is None:
            raise OptionError(
                Named("lr", "theory"), f": the constants L and sigma of the task {settings.task_name} are not known; "
                "give a number, or take ", Named("task", "quadratic"),
            )  # fmt: skip
        plain: dict[str, object] = {"local_steps": 1, "weight_decay": 0.0, "inner": None, "inner_set": {}}
        for name in (name for name, value in plain.items() if getattr(settings, name) != value):
            raise OptionError(
                Named("lr", "theory"), " is for one step of plain SGD to a round; leave ",
                Named(name, getattr(settings, name)), " out, or give a number",
            )  # fmt: skip
        return theorem_learning_rate(self.algorithm, bounds, rounds=self.steps, workers=settings.workers)

    def move_to(self, device: torch.device) -> None:
        """Move the model, and the examples that it gets, to where this process computes."""
        use_device(device)
        self.device = device
        self.model.to(device)  # in place: the inner optimizer keeps its parameters
        self.task.move_to(device)

    def steps_in(self, epochs: float) -> int:
        """Return the number of steps in these epochs."""
        return round(epochs * self.steps_per_epoch)

    @property
    def rounds(self) -> int:
        """The number of rounds of the run: one for `local_steps` steps, or for one step where the round is dense."""
        rounds = steps = 0
        while steps < self.steps:
            steps += 1 if self.algorithm.dense_in(rounds) else self.settings.local_steps
            rounds += 1
        return rounds

    def scheduler(self, start: int = 0) -> LambdaLR:
        """Return the inner optimizer's learning-rate schedule from step `start`, to be stepped after every step."""
        for group in self.inner.param_groups:
            group["initial_lr"] = group["lr"] = self.learning_rate
        return LambdaLR(self.inner, self._factor, last_epoch=start - 1)

    def _factor(self, step: int) -> float:
        """Return the share of the learning rate in this step: warm-up times schedule."""
        factor = 1.0
        if self.settings.lr_schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        elif self.settings.lr_schedule == "step":
            factor = 0.1 ** sum(step >= round(share * self.steps) for share in self.settings.decay_shares)
        warm_up_steps = self.steps_in(self.settings.warm_up_epochs or 0)
        if step < warm_up_steps:
            start = self.settings.warm_up_start
            factor *= start + (1 - start) * step / warm_up_steps
        return factor

    def loss(self, rank: int, step: int) -> Tensor:
        """Return worker `rank`'s loss in a step. Random draws use a stream of this worker and step."""
        return self.task.loss(rank, step)

    def weights(self) -> dict[int, float]:
        """Return by what each worker's vector is multiplied, 1 in the mean; none if workers count alike."""
        if self.settings.weights != "samples":
            return {}
        sizes = self.task.shard_sizes()
        return {rank: size * len(sizes) / sum(sizes) for rank, size in enumerate(sizes)}

    def guess(self) -> Guess | None:
        """Return what a model reaches that gives the same answer to everything; None where nothing is classified."""
        return self.task.guess()

    def judge(self) -> Judgement:
        """Return how good the model is with its parameters."""
        return self.task.judge()

    def accuracy(self) -> float:
        """Return the share of test examples, or of characters in them, that the model classifies correctly."""
        accuracy = self.judge().accuracy
        assert accuracy is not None, f"{self.settings.task_name} classifies nothing"
        return accuracy
