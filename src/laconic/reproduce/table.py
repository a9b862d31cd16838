"""What a published table is: jobs to run, and the printed figures to lay beside what they found."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from laconic.hyperparameters import near_misses
from laconic.lab.processes.pool import Figures, Task


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for; empty means the table's own choice."""

    data: str | None = None
    seeds: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table as it is printed: texts. The first column is left-aligned, the others right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Printed and measured figures side by side, and what must be known to read them."""

    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PublishedTable(ABC):
    """One table of one paper. Fields are its sizes; the defaults are the paper's."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    methods: ClassVar[tuple[str, ...]] = ()  # the rows that can be chosen; none: the table is computed whole
    default_seeds: ClassVar[tuple[int, ...]] = ()  # none: its figures do not depend on one
    reads_data: ClassVar[bool] = False

    def plan(self, request: Request) -> Request:
        """The request with the table's own choices filled in. Raises ValueError for what the table does not have."""
        if request.data is not None and not self.reads_data:
            raise ValueError(f"--data {request.data}: {self.name} reads no data; leave it out")
        if request.seeds and not self.default_seeds:
            raise ValueError(f"--seeds: the figures of {self.name} do not depend on a seed; leave it out")
        if request.methods and not self.methods:
            raise ValueError(f"--methods: {self.name} is computed whole; leave it out")
        for what, chosen in (("--seeds", request.seeds), ("--methods", request.methods)):
            doubled = [one for place, one in enumerate(chosen) if one in chosen[:place]]
            if doubled:
                raise ValueError(f"{what}: {doubled[0]} is given twice")
        for seed in request.seeds:
            if seed < 0:
                raise ValueError(f"--seeds {seed} must be at least 0")
        for method in request.methods:
            if method not in self.methods:
                known = list(self.methods)
                raise ValueError(
                    f"--methods {method!r} must be among {', '.join(known)} for {self.name}{near_misses(method, known)}"
                )
        return Request(
            data=request.data,
            seeds=request.seeds or self.default_seeds,
            methods=tuple(method for method in self.methods if method in (request.methods or self.methods)),
        )

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What the figures were made with, for the result file."""

    @property
    @abstractmethod
    def printed(self) -> Mapping[str, Any]:
        """The paper's figures, for the result file."""

    @abstractmethod
    def tasks(self, request: Request) -> list[Task]:
        """What to compute. `request` has been through `plan`. Raises what the data set raises for wrong data."""

    @abstractmethod
    def compare(self, found: Sequence[Figures]) -> Comparison:
        """Every job's figures beside the printed ones."""
