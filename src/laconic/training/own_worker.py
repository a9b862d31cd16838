"""The worker of this process, whose parameters the model always has."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from laconic.contract import Result
from laconic.training.flat_parameters import FlatParameters
from laconic.training.second_gradient import SecondGradient


class Driver(Protocol):
    """What it needs of a driver."""

    @property
    def own_worker_rank(self) -> int | None:
        """The worker that this process computes for; None if it only serves."""

    @property
    def rests(self) -> bool:
        """Whether the worker sends nothing in the next round."""


class OwnWorker:
    """The worker of this process, whose parameters the model always has; none if it only serves. See `Workers`."""

    is_one: ClassVar[bool] = True

    def __init__(self, flat: FlatParameters, driver: Driver) -> None:
        """`flat`: the model's parameters. `driver`: knows the worker's rank, and when it rests."""
        own = driver.own_worker_rank
        self.applying: Sequence[int] = () if own is None else (own,)
        self._driver = driver
        self.second: SecondGradient | None = None
        """What evaluates this step's mini-batch at other parameters, if the method does that."""
        self._flat = flat

    @property
    def present(self) -> Sequence[int]:
        """The worker's rank, if it takes part in this step."""
        return () if self._driver.rests else self.applying

    def compute(self, rank: int) -> None:
        """Do nothing: users compute the gradient before they call `step`."""

    def gradient_at(self, rank: int) -> SecondGradient | None:
        """Return what evaluates this step's mini-batch at other parameters."""
        return self.second

    def start_of(self, rank: int, start: Tensor) -> Tensor:
        """Return `start` (d,): there is one model."""
        return start

    def load(self, rank: int, start: Tensor) -> None:
        """Do nothing, and nothing in `store` and `keep`: the model has this worker's parameters."""

    def store(self, rank: int) -> None:
        """See `load`."""

    def keep(self, rank: int) -> None:
        """See `load`."""

    def end_step(self, start: Tensor | None, *, exchanged: bool) -> None:
        """Give the model the parameters `start` (d,) again if the exchange was aborted."""
        if exchanged and start is not None:
            self._flat.set_values(start)

    def pull(self, models: Mapping[int, Result]) -> None:
        """Take the newest model that the server has sent."""
        for model in models.values():
            assert isinstance(model, Tensor), "a server sends its model as a vector"
            self._flat.set_values(model)
