"""What the command line starts a method with, where nothing is given.

A method's hyper-parameters keep the paper's values. The c of DropSign and CompSkip is printed for ImageNet and trains
badly at small scale, so that runs start with another one. The grids by which these and the learning rates were chosen
are in docs/results/starting-values.md. Importing this file loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from laconic.contract import Algorithm

_BASE_LR = 0.3  # of plain SGD


@dataclass(frozen=True, kw_only=True)
class StartingValues:
    """Of one method."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Hyper-parameters in place of their defaults."""
    base_lr: float
    """What the method's `lr_factor` multiplies, in place of plain SGD's learning rate."""


STARTING_VALUES: Mapping[str, StartingValues] = {
    "compskip": StartingValues(settings={"c": "0.6", "server_c": "0.6"}, base_lr=0.02),
    "dropsign": StartingValues(settings={"c": "0.5", "server_c": "0.5"}, base_lr=0.01),
    "signsgd-mv": StartingValues(base_lr=0.2),
    **dict.fromkeys(("ssgd-mv", "ssgd-mv-ad", "ssgd-mv-rs"), StartingValues(base_lr=0.5)),
}


def starting_settings(name: str, given: Mapping[str, str]) -> Mapping[str, str]:
    """Return the hyper-parameters that a run of this method starts with beside the given ones.

    They belong together: if one of them is given, none is returned.
    """
    own = STARTING_VALUES[name].settings if name in STARTING_VALUES else {}
    return {} if own.keys() & given.keys() else own


def starting_learning_rate(method: "Algorithm") -> float:
    """Return the learning rate of plain SGD with which a run of this method starts, where none is given."""
    base_lr = STARTING_VALUES[method.name].base_lr if method.name in STARTING_VALUES else _BASE_LR
    return base_lr * method.lr_factor
