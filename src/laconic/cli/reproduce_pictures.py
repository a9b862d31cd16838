"""Pictures of items that are finished: beside the runs in --out, and beside the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.lab.atomic import write_bytes

if TYPE_CHECKING:
    from laconic.report.timeline.bars import Timeline
    from laconic.reproduce.items import Item
    from laconic.reproduce.judging import Found

FOLDER = "pictures"


def write_pictures(folder: Path, found: "Sequence[tuple[Item, Found]]") -> "dict[str, Path]":
    """Write the pictures of the items of which all that they show is finished, and return the files by item.

    Raises:
        OSError: A file cannot be written. The error names it.
    """
    from laconic.reproduce.pictures import is_drawable

    drawable = [(item, of_item) for item, of_item in found if is_drawable(item, of_item)]
    if not drawable:
        return {}
    from laconic.report.item_picture import draw_item  # here, since matplotlib takes a second and a half

    return {item.name: _written(folder, item, draw_item(item, of_item, ".svg")) for item, of_item in drawable}


def write_timeline(folder: Path, item: "Item", timeline: "Timeline") -> Path:
    """Write the picture of an item that draws recorded rounds, and return the file. Raises OSError as above."""
    from laconic.report.timeline.picture import draw_timeline

    return _written(folder, item, draw_timeline(timeline, ".svg", small=True))


def copy_timelines(folder: Path, out: Path, items: "Sequence[Item]") -> "dict[str, Path]":
    """Copy the pictures of recorded rounds that are in --out, and return the files by item. Raises OSError as above."""
    there = [(item, out / FOLDER / _file_name(item)) for item in items if item.records]
    return {item.name: _written(folder, item, file.read_bytes()) for item, file in there if file.is_file()}


def remove_pictures(out: Path) -> None:
    """Remove the pictures of what is run again."""
    for file in (out / FOLDER).glob("*.svg"):
        file.unlink()


def _written(folder: Path, item: "Item", data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / _file_name(item), data)
    return folder / _file_name(item)


def _file_name(item: "Item") -> str:
    return f"{item.name}.svg"
