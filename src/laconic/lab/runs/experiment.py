"""What each rank of a run computes: losses on its mini-batches, and the accuracy on the test examples."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from laconic.errors import Named, OptionError
from laconic.lab.datasets import load
from laconic.lab.datasets.augmentation import Augmentation
from laconic.lab.models import build, check_kind, spec_of
from laconic.lab.partitions import partition_of
from laconic.lab.runs.device import CPU, generators_of, use_device
from laconic.lab.runs.divergence import Guess
from laconic.lab.runs.settings import RunSettings
from laconic.protocol.layout import choose_layout
from laconic.random_keys import make_key

_TEST_BATCH = 1000


class Experiment:
    """Data, model and optimizer of one run, the same on every rank."""

    def __init__(self, settings: RunSettings) -> None:
        """Load the data and make the model.

        Raises:
            DatasetError: The data set is missing or not valid.
            ValueError: Sizes or settings do not fit the data or the algorithm.
        """
        self.settings = settings
        self.dataset = load(settings.dataset, settings.data, examples=settings.examples, **settings.reading)
        check_kind(settings.model, is_text=self.dataset.is_text)
        self.model = build(
            settings.model, self.dataset.input_shape, self.dataset.n_classes, settings.seed, **settings.of_model
        )
        self._augmentation = self._chosen_augmentation()
        self.partition = partition_of(settings.partition, self.dataset.train_labels, **settings.of_partition)
        self.steps_per_epoch = self.partition.rounds_per_epoch
        self.steps = self.steps_per_epoch * settings.epochs
        self.algorithm = settings.method
        if settings.dense_epochs is not None:
            rounds: dict[str, Any] = {"dense_rounds": self.steps_in(settings.dense_epochs)}  # of one step each
            self.algorithm = replace(self.algorithm, **rounds)
        self.inner = SGD(self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.device = CPU
        """Where the model, and the examples that it gets, are."""
        self._train, self._test = self._examples()
        self.spec = spec_of(self.model)
        self.algorithm.check_size(self.spec, settings.workers)
        if settings.fault_file is not None:
            layout = choose_layout(settings.layout, self.algorithm, self.spec, n_nodes=settings.n_processes)
            settings.fault_file.check(self.algorithm, layout, settings.workers, self.spec, self.rounds)

    def _chosen_augmentation(self) -> Augmentation | None:
        if not self.settings.augment:
            return None
        if not self.dataset.background:
            raise OptionError(
                Named("augment", True), f" is for pictures such as those of cifar10; {self.dataset.name} has none that "
                "may be mirrored, so leave it out",
            )  # fmt: skip
        return Augmentation(
            n_examples=len(self.dataset.train_labels), seed=self.settings.seed, background=self.dataset.background
        )

    def move_to(self, device: torch.device) -> None:
        """Move the model, and the examples that it gets, to where this process computes."""
        use_device(device)
        self.device = device
        self.model.to(device)  # in place: the inner optimizer keeps its parameters
        self._train, self._test = self._examples()

    def _examples(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return inputs and labels, to train and to test, where the model is."""
        data, device = self.dataset, self.device
        return (
            (data.train_inputs.to(device), data.train_labels.to(device)),
            (data.test_inputs.to(device), data.test_labels.to(device)),
        )

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
            group["initial_lr"] = group["lr"] = self.settings.learning_rate
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
        """Return worker `rank`'s loss on its mini-batch. Random layers use a stream of this worker and step."""
        for generator in generators_of(self.device):
            generator.manual_seed(make_key(self.settings.seed, "model", rank, step, "layers") >> 1)
        batch = self.partition.batch(rank, step)
        inputs, labels = self._train
        if self._augmentation is None:
            chosen = inputs[batch.to(self.device)]
        else:  # images are changed on the CPU
            changed = self._augmentation(self.dataset.train_inputs[batch], batch, step // self.steps_per_epoch)
            chosen = changed.to(self.device)
        # Of a text each character of a window has scores and a label; of others each input.
        scores = self.model(chosen).flatten(0, -2)
        return nn.functional.cross_entropy(scores, labels[batch.to(self.device)].flatten())

    def guess(self) -> Guess:
        """Return what a model reaches that gives the same answer to everything."""
        counts = self.dataset.test_labels.flatten().bincount()
        return Guess(accuracy=float(counts.max()) / int(counts.sum()), loss=math.log(self.dataset.n_classes))

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the share of test examples, or of characters in them, that the model classifies correctly."""
        self.model.eval()
        right = 0
        inputs, labels = self._test
        for start in range(0, len(labels), _TEST_BATCH):
            part = slice(start, start + _TEST_BATCH)
            right += int((self.model(inputs[part]).argmax(-1) == labels[part]).sum())
        self.model.train()
        return right / labels.numel()
