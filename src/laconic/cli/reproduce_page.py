"""`laconic reproduce --page`: the page of all items, with pictures of those that are finished beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.cli.reproduce_pictures import copy_timelines, write_pictures
from laconic.lab.outputs import OutputFile

if TYPE_CHECKING:
    from laconic.reproduce.item_runs import Choices
    from laconic.reproduce.items import Item


def write_page(page: OutputFile, out: Path, choices: "Choices") -> None:
    """Write the page of all items with what is finished in a folder, and their pictures into a folder beside it.

    Raises:
        OSError: A file cannot be written. The error names it.
    """
    from laconic.report.items_page import ItemOnPage, page_of
    from laconic.reproduce.code_hash import is_current
    from laconic.reproduce.grid import finished_tries, reached
    from laconic.reproduce.item_runs import Folder, found_in, planned_cells
    from laconic.reproduce.items import items
    from laconic.reproduce.judging import lines_of
    from laconic.reproduce.time_spent import time_of

    folder, every = Folder(out), list(items().values())
    cells = {item.name: planned_cells(item, choices) for item in every}
    found = {item.name: found_in(folder, item, cells[item.name]) for item in every}
    beside = page.path.with_suffix("")
    pictures = {
        **write_pictures(beside, [(item, found[item.name]) for item in every]), **copy_timelines(beside, out, every)
    }  # fmt: skip
    shown = [
        ItemOnPage(
            item=item, lines=lines_of(item, found[item.name]), spent=time_of(folder, item, cells[item.name]),
            is_stale=bool(item.compute and found[item.name].computed)
            and not is_current(folder.computed(item.compute), item.compute),
            picture=_beside(page.path, pictures, item),
        )
        for item in every
    ]  # fmt: skip
    searched = [(one, reached(one, folder)) for one in finished_tries(every, choices, folder)]
    page.write_text(page_of(shown, folder.made_with(), searched))


def _beside(page: Path, pictures: Mapping[str, Path], item: "Item") -> str:
    """Return the name of an item's picture as the page has it; empty if there is none."""
    return pictures[item.name].relative_to(page.parent).as_posix() if item.name in pictures else ""
