"""A classifier of examples, or a language model of characters: cross entropy, and the share of right answers."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from laconic.lab.datasets import Dataset
from laconic.lab.datasets.augmentation import Augmentation
from laconic.lab.datasets.hashing import hash_of
from laconic.lab.partitions import Partition, Share, shares_of
from laconic.lab.runs.device import CPU, generators_of
from laconic.lab.runs.divergence import Guess
from laconic.lab.shards import Shards
from laconic.lab.tasks.task import Judgement, Task
from laconic.random_keys import make_key

_TEST_BATCH = 1000


class ClassifierTask(Task):
    """Examples with labels, and a model that gives scores for each label."""

    def __init__(
        self,
        dataset: Dataset,
        model: nn.Module,
        partition: Partition | Shards,
        *,
        name: str,
        seed: int,
        augmentation: Augmentation | None = None,
        test_sizes: Sequence[int] = (),
    ) -> None:
        """Set up the task.

        Args:
            dataset: Inputs with one label each, or windows of text.
            model: Gives (n, n_classes) scores for n inputs; of text (n, t, n_classes).
            partition: Which worker gets which examples in which step.
            name: What the task is, for the title of a table.
            seed: The seed of random layers.
            augmentation: What changes inputs before they are trained on.
            test_sizes: The sizes of several test sets that follow each other; the accuracy is the mean over them.
        """
        self.dataset = dataset
        self.model, self.partition = model, partition
        self.steps_per_epoch = partition.rounds_per_epoch
        self.name = name
        self._seed, self._augmentation = seed, augmentation
        self._test_sizes = tuple(test_sizes) or (len(dataset.test_labels),)
        self._device = CPU
        self._train, self._test = self._examples()

    def shares(self) -> Sequence[Share]:
        """Return how many examples of each class every worker has."""
        return shares_of(self.partition, self.dataset.train_labels, self.dataset.n_classes)

    def move_to(self, device: torch.device) -> None:
        """Move the examples that the model gets."""
        self._device = device
        self._train, self._test = self._examples()

    def _examples(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return inputs and labels, to train and to test, where the model is."""
        data, device = self.dataset, self._device
        return (
            (data.train_inputs.to(device), data.train_labels.to(device)),
            (data.test_inputs.to(device), data.test_labels.to(device)),
        )

    def loss(self, rank: int, step: int) -> Tensor:
        """Return worker `rank`'s loss on its mini-batch. Random layers use a stream of this worker and step."""
        for generator in generators_of(self._device):
            generator.manual_seed(make_key(self._seed, "model", rank, step, "layers") >> 1)
        batch = self.partition.batch(rank, step)
        inputs, labels = self._train
        if self._augmentation is None:
            chosen = inputs[batch.to(self._device)]
        else:  # images are changed on the CPU
            changed = self._augmentation(self.dataset.train_inputs[batch], batch, step // self.steps_per_epoch)
            chosen = changed.to(self._device)
        # Of a text each character of a window has scores and a label; of others each input.
        scores = self.model(chosen).flatten(0, -2)
        return nn.functional.cross_entropy(scores, labels[batch.to(self._device)].flatten())

    def guess(self) -> Guess:
        """Return what a model reaches that gives the same answer to everything."""
        counts = self.dataset.test_labels.flatten().bincount()
        return Guess(accuracy=float(counts.max()) / int(counts.sum()), loss=math.log(self.dataset.n_classes))

    @torch.no_grad()
    def judge(self) -> Judgement:
        """Return the share of test examples, or of characters in them, that the model classifies correctly."""
        self.model.eval()
        shares = [
            self._share_right(inputs, labels)
            for inputs, labels in zip(*(torch.split(each, list(self._test_sizes)) for each in self._test), strict=True)
        ]
        self.model.train()
        return Judgement(accuracy=sum(shares) / len(shares))

    def _share_right(self, inputs: Tensor, labels: Tensor) -> float:
        right = 0
        for start in range(0, len(labels), _TEST_BATCH):
            part = slice(start, start + _TEST_BATCH)
            right += int((self.model(inputs[part]).argmax(-1) == labels[part]).sum())
        return right / labels.numel()

    def described(self) -> Mapping[str, str | int | float | bool]:
        """Return what the examples are; where they are does not matter."""
        dataset = self.dataset
        found: dict[str, str | int | float | bool] = {
            "dataset": dataset.name, "classes": dataset.n_classes, "steps per epoch": self.steps_per_epoch,
        }  # fmt: skip
        for split, inputs, labels in (
            ("train", dataset.train_inputs, dataset.train_labels), ("test", dataset.test_inputs, dataset.test_labels),
        ):  # fmt: skip
            found[f"{split} examples/number of examples"] = len(labels)
            found[f"{split} examples/shape of an example"] = str(tuple(inputs.shape[1:]))
            found[f"{split} examples/hash of the values"] = hash_of(inputs, labels)
        return found
