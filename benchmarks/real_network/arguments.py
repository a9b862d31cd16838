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


def a_link(text: str) -> str:
    """Check the bandwidth of a link, such as 100Mbit, or of its upload and download, such as 20Mbit+100Mbit."""
    for part in text.split("+"):
        a_bandwidth(part)
    if text.count("+") > 1:
        raise argparse.ArgumentTypeError(f"{text} must be a bandwidth, or an upload and a download with + between")
    return text


def a_file(text: str) -> Path:
    """Return the path of a file to write, in an existing folder."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}; make it, or write elsewhere")
    return path
