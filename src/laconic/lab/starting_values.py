"""What the command line starts a method with, where nothing is given.

A method's hyper-parameters keep the paper's values. The c of DropSign and CompSkip is printed for ImageNet and trains
badly at small scale, so that runs start with another one, and with a learning rate that fits it. The grids by which
they were chosen are in docs/results/starting-values.md. Importing this file loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StartingValues:
    """Of one method."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Hyper-parameters in place of their defaults."""
    lr_factor: float
    """The learning rate over plain SGD's, divided by the method's own `lr_factor`."""


STARTING_VALUES: Mapping[str, StartingValues] = {
    "compskip": StartingValues(settings={"c": "0.6", "server_c": "0.6"}, lr_factor=0.2),
    "dropsign": StartingValues(settings={"c": "0.5", "server_c": "0.5"}, lr_factor=0.1),
}


def starting_settings(name: str, given: Mapping[str, str]) -> Mapping[str, str]:
    """Return the hyper-parameters that a run of this method starts with beside the given ones.

    They belong together: if one of them is given, none is returned.
    """
    own = STARTING_VALUES[name].settings if name in STARTING_VALUES else {}
    return {} if own.keys() & given.keys() else own


def starting_lr_factor(name: str) -> float:
    """Return by what a run multiplies plain SGD's learning rate, beside the method's own factor."""
    return STARTING_VALUES[name].lr_factor if name in STARTING_VALUES else 1.0
