"""What every rank of a run computes: losses on its mini-batches, and the model's accuracy on the test examples."""

import math

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from laconic.keys import make_key
from laconic.lab.datasets import load
from laconic.lab.models import build
from laconic.lab.partitions import Partition
from laconic.lab.settings import RunSettings

_TEST_BATCH = 1000


class Experiment:
    """Data, model and optimizer of one run, the same on every rank."""

    def __init__(self, settings: RunSettings) -> None:
        """Loads the data. Raises DatasetError or ValueError for files or sizes that cannot work."""
        self.settings = settings
        self.dataset = load(settings.dataset, settings.data)
        self.model = build(settings.model, self.dataset.input_shape, self.dataset.n_classes, settings.seed)
        self.partition = Partition(
            n_examples=len(self.dataset.train_labels), n_workers=settings.workers, batch_size=settings.batch_size,
            seed=settings.seed, mode="fixed" if settings.partition == "fixed" else "resample",
        )  # fmt: skip
        self.rounds_per_epoch = self.partition.rounds_per_epoch
        self.rounds = self.rounds_per_epoch * settings.epochs
        self.inner = SGD(self.model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
        self.d = sum(p.numel() for p in self.model.parameters())

    def scheduler(self) -> LambdaLR:
        """The learning-rate schedule, stepped once a round. It belongs to the inner optimizer on every driver."""
        cosine = self.settings.schedule == "cosine"

        def factor(round_: int) -> float:
            return 0.5 * (1 + math.cos(math.pi * min(1.0, round_ / self.rounds))) if cosine else 1.0

        return LambdaLR(self.inner, factor)

    def loss(self, rank: int, round_: int) -> Tensor:
        """Worker `rank`'s loss on its mini-batch; random layers draw from a stream of this worker and round."""
        torch.manual_seed(make_key(self.settings.seed, "model", rank, round_, "layers") >> 1)
        batch = self.partition.batch(rank, round_)
        outputs = self.model(self.dataset.train_inputs[batch])
        return nn.functional.cross_entropy(outputs, self.dataset.train_labels[batch])

    @torch.no_grad()
    def accuracy(self) -> float:
        """The share of test examples that the model gets right."""
        self.model.eval()
        right = 0
        for start in range(0, len(self.dataset.test_labels), _TEST_BATCH):
            part = slice(start, start + _TEST_BATCH)
            right += int((self.model(self.dataset.test_inputs[part]).argmax(1) == self.dataset.test_labels[part]).sum())
        self.model.train()
        return right / len(self.dataset.test_labels)
