"""What a method keeps from round to round, declared as data: one table for the worker and one for the server.

```python
worker_slots: ClassVar[Mapping[str, Slot]] = {"residual": Slot(rule=Rule.SUM), "lr": Slot.number(Rule.SAME)}
server_slots: ClassVar[Mapping[str, Slot]] = {"stored.<rank>": Slot(rule=Rule.PER_WORKER)}
```
A name that ends in `.<rank>` stands for one memory for each worker: "stored.0", "stored.1", ...
A memory refuses to store what its table does not declare. The rules say what becomes of saved state when a job goes on
with another number of workers (`saved_memory.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from torch import Tensor

from laconic.contract.model_spec import ModelSpec
from laconic.errors import ContractError

_RANK = "<rank>"


class Rule(Enum):
    """What becomes of a memory with another number of workers: the leading ones stay, others leave or are new.

    At the server, SUM, MEAN and SAME all keep the value as it is.
    """

    SUM = "sum"
    """What leaving workers hold is added to worker 0's; new workers start without. For residuals."""
    MEAN = "mean"
    """New workers start with the mean of those that stay. For momentum."""
    SAME = "same"
    """All workers have the same bits, which new ones copy."""
    PER_WORKER = "per worker"
    """It is about one worker alone: new ones start without. At the server, the memory of a leaving worker goes."""
    DROP = "drop"
    """All start without it again."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One memory, or one for each worker."""

    rule: Rule
    dtype: torch.dtype | None = None
    """None: the type of the job's vectors, float32 or float64."""
    length: Literal["d"] | int | Callable[[ModelSpec], int] = "d"
    """Number of elements. "d": as many coordinates as the side has, which are saved by parameter name."""
    may_be_shorter: bool = False
    """Whether `length` is only the maximum."""
    values: Literal["finite", "indices", "bits"] = "finite"
    """What is checked before saved state is loaded: no inf or NaN; ascending coordinates of the vector; nothing."""
    lowest: float | None = None
    """The lowest number that a saved value may have, for counts, ages and sizes."""
    holds_parameters: bool = False
    """Whether it is about the parameters themselves: before it is written, zeros do not stand for it."""
    stays: bool = False
    """Whether a server may keep what the worker on its rank has sent as it is: the worker does not change it then."""
    at: str = ""
    """Name of the slot with the indices that these values belong to, if they are a sparse vector's."""

    @classmethod
    def number(cls, rule: Rule, *, lowest: float | None = None) -> "Slot":
        """Return the slot of one number, as `Memory.set_number` stores it."""
        return cls(rule=rule, dtype=torch.float64, length=1, lowest=lowest)

    def indices_of(self, name: str) -> str:
        """Return the name of the memory with the indices of the memory `name` of this slot, which may be itself."""
        return self.at.replace(_RANK, name.rpartition(".")[2]) if self.at else name


def rank_in(name: str) -> int | None:
    """Return the rank of the worker that a memory is about by its name, as in "stored.3"; None if there is none."""
    rank = name.rpartition(".")[2]
    return int(rank) if rank.isdecimal() else None


def slot_of(table: Mapping[str, Slot], name: str) -> Slot | None:
    """Return the slot of the memory `name`, or None if the table declares none."""
    if rank_in(name) is not None:
        return table.get(f"{name.rpartition('.')[0]}.{_RANK}")
    return None if name.endswith(_RANK) else table.get(name)


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The table of one side of a job."""

    table: Mapping[str, Slot]
    owner: str
    """Where the table is declared, for messages."""
    spec: ModelSpec
    """The model, of which this side may have only a slice."""
    n_workers: int
    dtype: torch.dtype
    """Type of the job's vectors."""
    offset: int = 0
    """Index of this side's first coordinate in the vector of the full model."""
    count: int
    """Number of coordinates of this side."""

    def find(self, name: str) -> Slot | None:
        """Return the slot of the memory `name`, or None if the table declares none."""
        rank = rank_in(name)
        return slot_of(self.table, name) if rank is None or rank < self.n_workers else None

    def is_vector(self, name: str) -> bool:
        """Return whether the memory `name` has an element for each coordinate."""
        slot = self.find(name)
        return slot is not None and slot.length == "d"

    def shape_of(self, name: str) -> tuple[torch.dtype, int]:
        """Return type and length of the memory `name`.

        Raises:
            ContractError: The table does not declare it.
        """
        slot = self.find(name)
        if slot is None:
            raise ContractError(
                f"{self.owner} declares no memory {name!r}, only {', '.join(sorted(self.table)) or 'none at all'}; add "
                f'"{name}": Slot(rule=...) to it'
            )
        length = slot.length if isinstance(slot.length, int) else self.count
        if callable(slot.length):
            length = slot.length(self.spec)
        return slot.dtype or self.dtype, length

    def mistake_in(self, name: str, value: Tensor) -> str:
        """Return what is wrong with a value of the memory `name`: its type or its length; empty if nothing is."""
        (dtype, length), slot = self.shape_of(name), self.find(name)
        may_be_shorter = slot is not None and slot.may_be_shorter
        if value.dtype != dtype:
            return f"is {value.dtype}; {self.owner} declares {dtype}"
        if value.numel() != length and not (may_be_shorter and value.numel() < length):
            return f"has {value.numel()} elements; {self.owner} declares {'at most ' * may_be_shorter}{length}"
        return ""

    def check_saved(self, saved: Mapping[str, Tensor]) -> None:
        """Check memories that are about to be loaded.

        Raises:
            ValueError: One is not declared, is no plain vector, or has another type, another length or values that it
                cannot have.
        """
        for name, value in saved.items():
            slot = self.find(name)
            if slot is None:
                raise ValueError(f"state_dict: {self.owner} declares no memory {name!r}")
            mistake = not_plain(value) or self.mistake_in(name, value) or self._impossible_in(slot, value)
            if not mistake and slot.at:
                place = slot.indices_of(name)
                if place not in saved or saved[place].numel() != value.numel():
                    mistake = f"has {value.numel()} values, and {place!r} not as many indices"
            if mistake:
                raise ValueError(f"state_dict: the memory {name!r} {mistake}")
        self._check_pairs(saved)

    def _check_pairs(self, saved: Mapping[str, Tensor]) -> None:
        """Raise ValueError for indices without their values."""
        for owner, slot in self.table.items():
            for name in saved if slot.at else ():
                if self.find(name) is not self.table.get(slot.at):
                    continue
                values = owner.replace(_RANK, name.rpartition(".")[2])
                if values not in saved:
                    raise ValueError(f"state_dict: the memory {name!r} has indices, and {values!r} is missing")

    def _impossible_in(self, slot: Slot, value: Tensor) -> str:
        """Return what is wrong with the values of a memory that has its type and its length; empty if nothing is."""
        if slot.values == "finite" and not bool(torch.isfinite(value).all()):
            return "has inf or NaN"
        if slot.values == "indices" and value.numel():
            low, high = (int(end) for end in value.aminmax())
            if low < 0 or high >= self.count:
                return f"has indices {low} .. {high}, which must be within 0 .. {self.count - 1}"
            if bool((value.diff() <= 0).any()):
                return "has indices that do not ascend, each once"
        if slot.lowest is not None and value.numel() and float(value.min()) < slot.lowest:
            return f"has {float(value.min()):g}, which must be at least {slot.lowest:g}"
        return ""


def not_plain(value: object) -> str:
    """Return why a saved value is no vector or number with memory of its own; empty if it is one."""
    if type(value) is not Tensor:
        return f"is a {type(value).__name__}, not a tensor"
    if value.layout != torch.strided or value.device.type == "meta":
        return f"is a {value.layout} tensor on {value.device}, which has no elements of its own"
    if value.dim() > 1:
        return f"has the shape {tuple(value.shape)}; memories are vectors"
    return ""
