"""The README for package indexes, on which a link to a file of this folder needs an address."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["laconic"]["address"]


def with_address(text: str) -> str:
    """Return the README with its address in front of every link to a file of this folder; without one, as it is."""
    return re.sub(r"\]\((?![a-z]+:|#)", f"]({ADDRESS}", text) if ADDRESS else text


setup(
    long_description=with_address((ROOT / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
