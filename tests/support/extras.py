"""Packages that only some machines have: what a test needs of them, or why it is skipped."""

import importlib.util

import pytest


def needs(module: str) -> None:
    """Skip the test where the package of a module is missing, which the module's own parent could not be asked."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed: pip install laconic[trainers]")
