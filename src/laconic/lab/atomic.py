"""Files that are there in full or not at all."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 under another name, then give it this one. Stopped meanwhile, it leaves no half."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(text.encode())
    os.replace(part, path)
