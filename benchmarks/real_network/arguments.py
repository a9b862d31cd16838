"""What the benches on shaped links take from their command lines."""

import argparse
from pathlib import Path

from laconic.units import bandwidth


def a_bandwidth(text: str) -> str:
    """A link's bandwidth, such as 100Mbit."""
    try:
        bandwidth(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def a_file(text: str) -> Path:
    """Where to write, in a folder that is there."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}; make it, or write elsewhere")
    return path
