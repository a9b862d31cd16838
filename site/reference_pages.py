"""Pages of the public names, grouped by the package that holds them; their texts are the docstrings."""

from importlib import import_module

import laconic

TITLES = {
    "training": "Training",
    "algorithms": "Methods",
    "compressors": "Compressors",
    "contract": "The contract of a method",
    "policies": "Skip policies",
    "telemetry": "Traffic, rounds and logs",
    "network": "Links and clocks",
    "gossip": "Graphs of workers",
    "faults": "Faults",
    "kernels": "Kernels",
    "errors": "Errors",
    "statements": "Warnings",
}
DOORS = {
    "ddp": "Inside DistributedDataParallel",
    "fsdp": "Between nodes of a sharded model",
    "checkpoint": "Files of state",
    "planning": "Choosing a method",
    "traffic": "What any program sends",
}  # modules that re-export what is used by their name


def reference_pages() -> dict[str, str]:
    """Return the path and text of the page of each group of public names."""
    groups: dict[str, list[str]] = {}
    for name, module in laconic._MODULES.items():
        groups.setdefault(module.split(".")[1], []).append(f"{module}.{name}")
    assert groups.keys() == TITLES.keys(), f"titles of {groups.keys() ^ TITLES.keys()} are missing or left over"
    pages = {}
    for group, title in TITLES.items():
        names = "\n\n".join(f"::: {name}" for name in groups[group])
        pages[f"reference/{group}.md"] = f"# {title}\n\n{names}\n"
    for door, title in DOORS.items():
        names = "\n\n".join(f"::: laconic.{door}.{name}" for name in _names_of(door))
        pages[f"reference/{door}.md"] = f"# {title}\n\nIn `laconic.{door}`.\n\n{names}\n"
    return pages


def _names_of(door: str) -> list[str]:
    """Return the names that a module offers to users; of `planning`, those that a training script needs."""
    return ["choose", "Chosen"] if door == "planning" else import_module(f"laconic.{door}").__all__
