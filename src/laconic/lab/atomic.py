"""Files that are written completely or not at all."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to a temporary file and rename it to `path`, so that `path` is never incomplete."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(text.encode())
    os.replace(part, path)
