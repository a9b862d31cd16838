"""How long items took here, as the times of their runs and figures added up, beside how long they may take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from laconic.reproduce.item_runs import Folder, PlannedCell
from laconic.reproduce.items import Item

AT_ONCE = 2
"""Processes that run at once: one for each core of the machine that the limits are for."""
MINUTES_OF_AN_ITEM, HOURS_OF_ALL = 30.0, 4.0


@dataclass(frozen=True, kw_only=True)
class TimeSpent:
    """What has been spent on some runs and figures."""

    seconds: Mapping[str, float]
    """By run or figure: shared ones have one name, and count once."""
    n_left: int
    """How many have not been run."""

    @property
    def minutes(self) -> float:
        """Minutes of the machine, with `AT_ONCE` processes at once."""
        return sum(self.seconds.values()) / AT_ONCE / 60


def time_of(folder: Folder, item: Item, cells: Sequence[PlannedCell]) -> TimeSpent:
    """Return what an item has taken. Raises OptionError for a damaged file."""
    seconds: dict[str, float] = {}
    n_left = 0
    for planned in cells:
        if planned.key in seconds:
            continue
        cell = folder.cell(planned)
        if cell is None:
            n_left += 1
        else:
            seconds[planned.key] = float(cell.figures["seconds"])
    if item.compute:
        found = folder.computed(item.compute)
        if found is None:
            n_left += 1
        else:
            seconds[item.compute] = float(found["seconds"])
    return TimeSpent(seconds=seconds, n_left=n_left)


def time_of_all(spent: Iterable[TimeSpent]) -> TimeSpent:
    """Return what all items have taken together; how many runs are left is only a bound, since items share them."""
    listed = list(spent)
    return TimeSpent(
        seconds={name: one for each in listed for name, one in each.seconds.items()},
        n_left=sum(each.n_left for each in listed),
    )
