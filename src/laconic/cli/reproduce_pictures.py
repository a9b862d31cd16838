"""Pictures of items that are finished: beside the runs in --out, and beside the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.lab.atomic import write_bytes

if TYPE_CHECKING:
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

    folder.mkdir(parents=True, exist_ok=True)
    files = {item.name: folder / f"{item.name}.svg" for item, _ in drawable}
    for item, of_item in drawable:
        write_bytes(files[item.name], draw_item(item, of_item, ".svg"))
    return files


def remove_pictures(out: Path) -> None:
    """Remove the pictures of what is run again."""
    for file in (out / FOLDER).glob("*.svg"):
        file.unlink()
