"""What one worker or one server remembers from round to round.

A round either happens on every rank or on none. So what a step writes is staged, and the driver commits it
when the round is through, or drops it when some rank had to call the round off.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class Memory:
    """Named tensors. A name that was never written reads as a zero vector of the worker's or server's length.

    Reading sees what the current step has written. Values are replaced, never changed in place.
    """

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device | None = None) -> None:
        """`count`: length of the vectors that unwritten names read as."""
        self._zero = torch.zeros((), dtype=dtype, device=device).expand(count)
        self._kept: dict[str, Tensor] = {}
        self._staged: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name in self._staged:
            return self._staged[name]
        return self._kept.get(name, self._zero)

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._staged[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._staged or name in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def number(self, name: str, default: float) -> float:
        """A remembered number, or `default` before it was first set."""
        return float(self[name]) if name in self else default

    def set_number(self, name: str, value: float) -> None:
        """Remember one number, in float64."""
        self[name] = torch.tensor(value, dtype=torch.float64)

    def commit(self, borrowed: Tensor | None = None) -> None:
        """Keep what this step wrote. Values in `borrowed`'s storage are copied: its owner will overwrite it."""
        for name, value in self._staged.items():
            shared = (
                borrowed is not None and value.untyped_storage().data_ptr() == borrowed.untyped_storage().data_ptr()
            )
            self._kept[name] = value.clone() if shared else value
        self._staged = {}

    def drop(self) -> None:
        """Forget what this step wrote."""
        self._staged = {}

    def saved(self) -> dict[str, Tensor]:
        """A copy of everything kept; nothing may be staged."""
        assert not self._staged, f"saved in the middle of a step: {sorted(self._staged)}"
        return {name: value.clone() for name, value in self._kept.items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Replace everything by a copy of `saved`."""
        self._staged = {}
        self._kept = {name: value.clone() for name, value in saved.items()}
