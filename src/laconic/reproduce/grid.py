"""A search of learning rates, the same for every row: a third, one and three times that of the setting.

It runs one seed for a third of the epochs, with decays at the same shares. Methods with c keep the ratio of rate and c.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from laconic.reproduce.item_runs import Choices, Folder, PlannedCell, base_row, planned_cells
from laconic.reproduce.items import Item, setting_of

FACTORS = (1 / 3, 1.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Try:
    """A run of the search."""

    setting: str
    row: str
    factor: float
    cell: PlannedCell

    @property
    def learning_rate(self) -> float:
        """The learning rate that is tried."""
        return self.cell.settings.learning_rate


def tries_of(items: Sequence[Item], choices: Choices) -> list[Try]:
    """Return the runs of the search for the rows of these items, each once."""
    found: dict[tuple[str, str, float], Try] = {}
    for item in items:
        if not item.setting:
            continue
        setting = setting_of(item.setting)
        if not setting.is_searched:
            continue
        rows = {base_row(item, setting, row) for row in (*item.rows, *item.own)}
        plain = replace(item, rows=tuple(row for row in setting.rows if row in rows), own={})
        seed = (choices.seeds or setting.seeds)[0]
        for factor in FACTORS:
            factors = {(setting.name, row): factor for row in rows}
            for cell in planned_cells(plain, replace(choices, seeds=(seed,), factors=factors)):
                epochs = max(1, round(cell.settings.epochs / 3))
                short = replace(cell, settings=replace(cell.settings, epochs=epochs))
                found[setting.name, cell.row, factor] = Try(
                    setting=setting.name, row=cell.row, factor=factor, cell=short
                )
    return list(found.values())


def reached(one: Try, folder: Folder) -> float:
    """Return how good a finished try is: its final accuracy in points, or its gap below 0."""
    cell = folder.cell(one.cell)
    assert cell is not None
    last: Any = cell.last
    return 100 * float(last["test_accuracy"]) if last["gap"] is None else -float(last["gap"])


def best_factors(tries: Sequence[Try], folder: Folder) -> dict[tuple[str, str], float]:
    """Return the factor of the best try of each row; of equal ones, the one nearest to 1."""
    by_row: dict[tuple[str, str], list[Try]] = {}
    for one in tries:
        by_row.setdefault((one.setting, one.row), []).append(one)
    return {
        row: max(of_row, key=lambda one: (reached(one, folder), one.factor == 1)).factor
        for row, of_row in by_row.items()
    }  # fmt: skip


def finished_tries(items: Sequence[Item], choices: Choices, folder: Folder) -> list[Try]:
    """Return the tries of the rows of which a search has finished all."""
    tries = tries_of(items, choices)
    left = {(one.setting, one.row) for one in tries if folder.cell(one.cell) is None}
    return [one for one in tries if (one.setting, one.row) not in left]
