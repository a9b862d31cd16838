"""Cells that differ only in their network and train the same model: they are trained once, and timed on each."""

import types
from collections.abc import Iterator, Sequence
from dataclasses import fields

from laconic.lab.comparison.plan import Cell
from laconic.lab.runs.settings import RunSettings

_MEASURED = "link_bytes_per_s"


def trained_together(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells in groups, in order: each is trained once."""
    groups: dict[object, list[Cell]] = {}
    for cell in cells:
        key = (cell.label, cell.partition, cell.seed) if is_network_unseen(cell.settings) else cell.folder
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def is_network_unseen(settings: RunSettings) -> bool:
    """Return whether a run trains the same model on every network.

    Not where faults happen, where gradients are applied as they arrive, or where a method or a part of it reads the
    bandwidth that is measured, which is looked for in its code.
    """
    method = settings.method
    parts = [method, *(getattr(method, each.name) for each in fields(method))]
    return settings.faults is None and not method.is_asynchronous and not any(map(_reads_link, parts))


def _reads_link(part: object) -> bool:
    functions = [each for cls in type(part).__mro__ for each in vars(cls).values()]
    unwrapped = [each.fget if isinstance(each, property) else each for each in functions]
    return any(_MEASURED in _names_in(each.__code__) for each in unwrapped if isinstance(each, types.FunctionType))


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)
