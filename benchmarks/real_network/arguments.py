"""Argument types of the benches on shaped links."""

import argparse
from pathlib import Path

from laconic.units import bandwidth


def a_bandwidth(text: str) -> str:
    """Check a bandwidth, such as 100Mbit, and return its text."""
    try:
        bandwidth(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def a_file(text: str) -> Path:
    """Return the path of a file to write, in an existing folder."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}; make it, or write elsewhere")
    return path
