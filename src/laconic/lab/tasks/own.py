"""A task of a user's own: any model, loss and figure, on any examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from laconic.errors import Named, OptionError
from laconic.lab.datasets.hashing import hash_of
from laconic.lab.models.own import check_module
from laconic.lab.own_functions import call, called, takes, wrong_result
from laconic.lab.partitions import Partition
from laconic.lab.runs.device import CPU, generators_of
from laconic.lab.shards import Shards
from laconic.lab.tasks.task import Judgement, Task
from laconic.random_keys import make_key


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnTask:
    """What a function of a user's own returns for `--task module:function`."""

    model: nn.Module
    train: tuple[Tensor, Tensor]
    """Inputs and targets, with as many rows each. Workers share the rows."""
    test: tuple[Tensor, Tensor]
    """Inputs and targets that `metric` gets."""
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    """`loss(model, inputs, targets)` returns the loss of a batch, a tensor of one number."""
    metric: Callable[[nn.Module, Tensor, Tensor], float]
    """`metric(model, inputs, targets)` returns the figure of the test examples: the higher, the better."""


@dataclass(frozen=True, kw_only=True)
class OwnKind:
    """The task of `module:function`, with the texts of `task_set` as its arguments."""

    has_examples: ClassVar[bool] = True
    takes_data: ClassVar[bool] = False
    takes_model: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("metric",)
    judged_by: ClassVar[str] = "metric"

    text: str
    settings: Mapping[str, str]

    def made(self, seed: int) -> OwnTask:
        """Call the function; it gets the seed too if it has an argument of that name.

        Raises:
            OptionError: It cannot be found, raises, or returns something else.
        """
        given: dict[str, object] = dict(self.settings)
        if "seed" in takes(self.text, "task"):
            given["seed"] = seed
        with torch.random.fork_rng(devices=[]):  # so that all ranks start with the same parameters
            torch.default_generator.manual_seed(make_key(seed, "model", 0, 0, "init"))
            found = call(self.text, "task", **given)
        if not isinstance(found, OwnTask):
            raise wrong_result(self.text, "task", found, "a laconic.lab.tasks.OwnTask")
        check_module(self.text, "task", found.model)
        for name, pair in (("train", found.train), ("test", found.test)):
            tensors = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(t, Tensor) for t in pair)
            if not tensors or not pair[0].dim() or len(pair[0]) != len(pair[1]) or not len(pair[0]):
                raise OptionError(
                    Named("task", self.text), f": its {name} must be two tensors with as many rows, inputs and targets"
                )
        return found


class ExampleTask(Task):
    """A task of a user's own, with the rows of each worker in each step."""

    def __init__(self, text: str, own: OwnTask, partition: Partition | Shards, seed: int) -> None:
        """Set up the task, and try its loss on two examples.

        Raises:
            OptionError: The loss raises, or is no number with a gradient.
        """
        self._text, self._own, self._seed = text, own, seed
        self.name, self.model, self.partition = text, own.model, partition
        self.steps_per_epoch = partition.rounds_per_epoch
        self._device = CPU
        self._train, self._test = own.train, own.test
        self._try_loss()

    def _try_loss(self) -> None:
        """Refuse a loss that is no number with a gradient. The model is left as it was."""
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        with torch.random.fork_rng(devices=[]), called(self._text, "task"):
            loss = self._own.loss(self.model, *(each[:2] for each in self._train))
        self.model.load_state_dict(before)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise OptionError(
                Named("task", self._text), ": its loss must return a tensor of one number that depends on the model's "
                f"parameters, found {str(loss)!r:.60}",
            )  # fmt: skip

    def loss(self, rank: int, step: int) -> Tensor:
        """Return worker `rank`'s loss on its mini-batch. Random layers use a stream of this worker and step."""
        for generator in generators_of(self._device):
            generator.manual_seed(make_key(self._seed, "model", rank, step, "layers") >> 1)
        batch = self.partition.batch(rank, step).to(self._device)
        inputs, targets = self._train
        return self._own.loss(self.model, inputs[batch], targets[batch])

    @torch.no_grad()
    def judge(self) -> Judgement:
        """Return the figure of the test examples."""
        self.model.eval()
        metric = float(self._own.metric(self.model, *self._test))
        self.model.train()
        return Judgement(metric=metric)

    def described(self) -> Mapping[str, str | int | float | bool]:
        """Return a hash of the examples."""
        return {
            "task": self._text, "steps per epoch": self.steps_per_epoch,
            "train examples/hash of the values": hash_of(*self._own.train),
            "test examples/hash of the values": hash_of(*self._own.test),
        }  # fmt: skip

    def move_to(self, device: torch.device) -> None:
        """Move the examples."""
        self._device = device
        self._train = (self._own.train[0].to(device), self._own.train[1].to(device))
        self._test = (self._own.test[0].to(device), self._own.test[1].to(device))
