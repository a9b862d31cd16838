"""What a shell completes behind an option: choices, and names of methods. No torch is loaded for it."""

from collections.abc import Callable

from laconic.cli.algorithm_files import described
from laconic.lab.options import Option


def candidates(spec: Option) -> Callable[[str], list[str]] | None:
    """Return the function that lists what the value of an option may be; None if a shell completes files instead."""
    if spec.choices:
        return lambda incomplete: [choice for choice in spec.choices if choice.startswith(incomplete)]
    if spec.names == "methods":
        return _methods
    return None


def _methods(incomplete: str) -> list[str]:
    """Return the names of methods; behind a comma, those of one more."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{one.name}" for one in described() if one.name.startswith(last)]
