"""Which optimizer exchanges the gradients of a parameter: one at a time."""

import gc
from collections.abc import Iterable
from weakref import WeakSet

import torch.distributed as dist
from torch import Tensor

from laconic.drivers.distributed.door import door
from laconic.training.flat_parameters import FlatParameters

_claims: "WeakSet[Claim]" = WeakSet()


class Claim:
    """The claim of an optimizer to its parameters, as long as somebody holds it."""

    def __init__(self, flat: FlatParameters, group: dist.ProcessGroup | None) -> None:
        """Prepare a claim, which `take` makes. `group`: the ranks that train together; None for all."""
        self.group = group
        self.lost = ""
        """Why it holds no more; empty while it does."""
        self._flat = flat
        self.door = door()

    def check(self) -> None:
        """Raise ValueError if another optimizer has some of these parameters and others besides, as this one has."""
        if any(self._shared(other) for other in _claims if self._is_at_odds(other)):
            gc.collect()  # an optimizer that nobody holds claims nothing
        for other in [claim for claim in _claims if self._is_at_odds(claim)]:
            shared = self._shared(other)
            raise ValueError(
                f"{self.door.parameters}: parameter {shared[0]!r} is trained by another {other.door.made}, beside "
                f"parameters that this one does not have ({len(shared)} are in both); each would exchange its "
                "gradient: list it in one of the two, or drop the other one"
            )

    def take(self) -> None:
        """Take the parameters; an optimizer that had the same ones cannot step any more."""
        for other in _claims:
            if shared := self._shared(other):
                other.lost = (
                    f"parameter {shared[0]!r} is trained by a {self.door.made} that was made later; step that one, or "
                    f"{other.door.anew}"
                )
        _claims.add(self)

    def holds(self, parameters: Iterable[Tensor]) -> bool:
        """Return whether one of these parameters is claimed."""
        own = self._names()
        return any(id(parameter) in own for parameter in parameters)

    def _names(self) -> dict[int, str]:
        return dict(zip(map(id, self._flat.parameters), self._flat.names, strict=True))

    def _shared(self, other: "Claim") -> list[str]:
        """Return the names of the parameters that both have."""
        own = self._names()
        return [] if other.lost else [own[key] for key in other._names() if key in own]

    def _is_at_odds(self, other: "Claim") -> bool:
        n_shared = len(self._shared(other))
        return 0 < n_shared < min(len(self._flat.parameters), len(other._flat.parameters))


def claims() -> list[Claim]:
    """Return the claims of this process that hold."""
    return [claim for claim in _claims if not claim.lost]
