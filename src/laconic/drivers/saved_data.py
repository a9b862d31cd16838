"""Checks of the plain data in a saved state, which may come from anywhere. Tensors are checked by their slots."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from laconic.drivers.gathered import Either, Schema, misfit
from laconic.telemetry.meter import Count, Direction, Meter

NUMBER = range(1 << 62)
"""The schema of a count."""
_COUNT = {field.name: int | float if field.name == "paper_bits" else NUMBER for field in fields(Count)}
_METER = {
    "counts": dict.fromkeys(get_args(Direction), _COUNT),
    "by_exchange": {direction: {str: _COUNT} for direction in get_args(Direction)},
}
COUNTS = {"rounds": NUMBER, "aborted_rounds": NUMBER}
"""The schema of a driver's own counts."""


def check_data(what: str, value: object, schema: Schema) -> None:
    """Raise ValueError unless saved data fit a schema (`gathered.Schema`)."""
    problem = misfit(value, schema, what)
    if problem:
        raise ValueError(f"state_dict: {problem}")


def check_mapping(what: str, saved: object) -> None:
    """Raise ValueError unless it has named entries. A tensor has none, though torch lets it be asked."""
    if not isinstance(saved, Mapping):
        raise ValueError(f"state_dict: {what} is {type(saved).__name__}; it must be a mapping of names to values")


def check_worker(saved: Mapping[str, Any]) -> None:
    """Raise ValueError for counts or a bandwidth of a worker that cannot be. Its memories have checks of their own."""
    check_mapping("a worker's state", saved)
    check_meter(saved["meter"])
    _check_link(saved["link_bytes_per_s"])


def check_meter(saved: Any) -> None:  # noqa: ANN401 - from a file
    """Raise ValueError for counts that cannot be. None is no counts."""
    check_data("a meter", saved, Either(type(None), _METER))
    if saved is not None:
        Meter().restore(saved)  # which refuses numbers that are no counts


def check_server(saved: Mapping[str, Any]) -> None:
    """Raise ValueError for a slice or a bandwidth of a server that cannot be."""
    check_mapping("a server's state", saved)
    check_data("a server's slice", saved["slice"], (NUMBER, NUMBER))
    _check_link(saved["link_bytes_per_s"])


def check_counts(saved: Mapping[str, Any], schema: Mapping[str, Schema] = COUNTS) -> None:
    """Raise ValueError unless these entries of a saved state fit their schemas; it may have others."""
    check_mapping("a part", saved)
    for name, of in schema.items():
        check_data(name, saved[name], of)


def _check_link(bytes_per_s: object) -> None:
    possible = isinstance(bytes_per_s, (int, float)) and math.isfinite(bytes_per_s) and bytes_per_s > 0
    if bytes_per_s is not None and not possible:
        raise ValueError(f"state_dict: a link's bandwidth is {bytes_per_s!r:.60}; it must be above 0 and finite")


def check_arrivals(saved: Mapping[str, Any], n_workers: int, n_parameters: int) -> None:
    """Raise ValueError for counts of an asynchronous server that cannot be. Its model has a check of its own."""
    check_mapping("the server's part", saved)
    check_data("the server's updates", saved["updates"], NUMBER)
    counts = {"staleness": {int: NUMBER}} | dict.fromkeys(("dropped", "held", "aborted", "n_finished"), NUMBER)
    check_data("the workers' updates", saved["update_counts"], (counts,) * n_workers)
    check_ranks("the parameters in use", [int(rank) for rank in saved["used"]], n_workers)
    for used in saved["used"].values():
        check_data("the parameters in use", used, (bool,) * n_parameters)


def check_bound(saved: Mapping[str, Any], n_workers: int) -> None:
    """Raise ValueError for a state of a staleness bound that cannot be."""
    check_mapping("the server's bound", saved)
    check_data("the server's version", saved["version"], NUMBER)
    versions = Either(type(None), range(saved["version"] + 1))
    check_data("the models that are out", saved["bases"], {str: versions})
    out = [int(rank) for rank in saved["bases"]]
    check_ranks("the workers", [*out, *saved["requesting"]], n_workers)
    check_ranks("the workers whose gradients wait", saved["held"], n_workers)
    if not {*saved["held"]} <= {*out}:
        raise ValueError("state_dict: a gradient waits of a worker that has no model")


def check_ranks(what: str, ranks: list[int], n_workers: int) -> None:
    """Raise ValueError unless these are ranks of workers, each once."""
    check_data(what, ranks, [range(n_workers)])
    if len({*ranks}) != len(ranks):
        raise ValueError(f"state_dict: {what} are {ranks!r:.60}; each may be there once")
