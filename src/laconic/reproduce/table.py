"""The interface of a published table: its tasks, and its published figures to compare with."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from laconic.errors import Named, OptionError
from laconic.hyperparameters import near_misses
from laconic.lab.processes.pool import Figures, PoolTask


@dataclass(frozen=True, kw_only=True)
class Request:
    """The user's choices."""

    data: str | None = None
    """The folder of the data set."""
    seeds: tuple[int, ...] = ()
    """The seeds; empty for the table's default."""
    methods: tuple[str, ...] = ()
    """The rows; empty for all."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The text of one table. The first column is left-aligned, the others right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Published and measured figures side by side."""

    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...] = ()
    """How to read the sheets."""
    diverged: tuple[str, ...] = ()
    """The runs that diverged, each with the reason: their figures are not those of a trained model."""


@dataclass(frozen=True, kw_only=True)
class PublishedTable(ABC):
    """One table of one paper. Fields are its sizes, with the paper's values as defaults."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    methods: ClassVar[tuple[str, ...]] = ()
    """The rows that can be chosen; empty if the table has no such choice."""
    default_seeds: ClassVar[tuple[int, ...]] = ()
    """Empty if the figures do not depend on a seed."""
    reads_data: ClassVar[bool] = False
    """Whether it needs a data set from --data."""
    saves_midway: ClassVar[bool] = False
    """Whether the work of its tasks takes an argument `folder`, where they save themselves on the way."""

    def plan(self, request: Request) -> Request:
        """Return the request with the table's defaults filled in.

        Raises:
            OptionError: The table does not have a requested option, seed or row.
        """
        if request.data is not None and not self.reads_data:
            raise OptionError(Named("data", request.data), f": {self.name} reads no data; leave it out")
        if request.seeds and not self.default_seeds:
            raise OptionError(Named("seeds"), f": the figures of {self.name} do not depend on a seed; leave it out")
        if request.methods and not self.methods:
            raise OptionError(Named("methods"), f": {self.name} always computes all rows; leave it out")
        for what, chosen in (("seeds", request.seeds), ("methods", request.methods)):
            doubled = [one for place, one in enumerate(chosen) if one in chosen[:place]]
            if doubled:
                raise OptionError(Named(what), f": {doubled[0]} is given twice")
        for seed in request.seeds:
            if seed < 0:
                raise OptionError(Named("seeds", seed), " must be at least 0")
        for method in request.methods:
            if method not in self.methods:
                known = list(self.methods)
                raise OptionError(
                    Named("methods", method, quoted=True),
                    f" must be in {', '.join(known)} for {self.name}{near_misses(method, known)}",
                )
        return Request(
            data=request.data,
            seeds=request.seeds or self.default_seeds,
            methods=tuple(method for method in self.methods if method in (request.methods or self.methods)),
        )

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the settings of the runs, for the result file."""

    @property
    @abstractmethod
    def printed(self) -> Mapping[str, Any]:
        """The paper's figures, for the result file."""

    @abstractmethod
    def tasks(self, request: Request) -> list[PoolTask]:
        """Return the tasks to run.

        Args:
            request: The result of `plan`.

        Raises:
            DatasetError: The data set is missing or not valid.
        """

    @abstractmethod
    def compare(self, found: Sequence[Figures]) -> SideBySide:
        """Compare the figures of all tasks with the published ones."""
