"""Hyper-parameters that methods got after runs of items had been recorded: their defaults do what was done before.

A run is known by all its settings. One that has such a hyper-parameter at this value is the recorded one without it.
"""

from collections.abc import Mapping

LATER: Mapping[str, Mapping[str, str]] = {
    "sparse": {"answer": "dense"},
    "sasg": {"answer": "dense"},
    "csgd": {"partitions": "false"},
}
"""By method, the values as a run's settings have them."""


def without_later(algorithm: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """Return a method's hyper-parameters without those that came later and have the value that was there before."""
    later = LATER.get(algorithm, {})
    return {name: text for name, text in chosen.items() if later.get(name) != text}
