"""What `attach` returns."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch.nn.parallel import DistributedDataParallel

from laconic.contract import Algorithm
from laconic.ddp.carriable import check_carriable, goes_by_step
from laconic.ddp.hook_carrier import HookCarrier
from laconic.ddp.idle_carrier import IdleCarrier
from laconic.ddp.modes import check_modes
from laconic.ddp.settings import Settings
from laconic.ddp.step_carrier import StepCarrier
from laconic.ddp.trampoline import Trampoline
from laconic.drivers.distributed.meeting import refusals_shown
from laconic.drivers.distributed.rounds import TOPIC
from laconic.statements import state_once
from laconic.telemetry.traffic import Traffic


class Carrier(Protocol):
    """What runs a method's rounds."""

    @property
    def algorithm(self) -> Algorithm:
        """The method."""

    @property
    def driver(self) -> Any:  # noqa: ANN401
        """What moves its packets."""

    @property
    def overlap(self) -> bool:
        """Whether rounds begin while the backward pass goes on."""

    @property
    def n_slices(self) -> int:
        """Number of slices of the model with packets of their own."""

    @property
    def aborted(self) -> bool:
        """Whether the last round was aborted."""

    def saved(self) -> dict[str, Any]:
        """Return the method's state."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""

    def close(self) -> None:
        """Carry the method no longer."""


class Handle:
    """A method that is attached to a model in DistributedDataParallel; see `attach`, which makes it."""

    def __init__(self, ddp: DistributedDataParallel | None, method: Algorithm, settings: Settings) -> None:
        """Begin to carry a method. Collective. Without a model, one worker is alone."""
        self._ddp, self._settings = ddp, settings
        self._trampoline: Trampoline | None = None
        self._carrier = self._carrier_of(method)

    def _carrier_of(self, method: Algorithm) -> Carrier:
        ddp, settings = self._ddp, self._settings
        if ddp is None:
            check_carriable(method, settings)
            state_once(
                f"{method.name} exchanges nothing: one worker trains, and no DistributedDataParallel wraps its model"
            )
            return IdleCarrier(method)
        with refusals_shown(ddp.process_group, TOPIC):
            check_carriable(method, settings)
            check_modes(ddp)
            self._trampoline = Trampoline.of(ddp)
            self._trampoline.check_free()
        kind = StepCarrier if goes_by_step(method, settings) else HookCarrier
        carrier: Carrier = kind(ddp, self._trampoline, method, settings)
        if carrier.driver.speaks:
            state_once(f"{method.name} is attached: {_when(carrier)}")
        return carrier

    @property
    def algorithm(self) -> Algorithm:
        """The method."""
        return self._carrier.algorithm

    @property
    def driver(self) -> Any:  # noqa: ANN401
        """What moves its packets; `laconic.observe(handle, ...)` asks for it."""
        return self._carrier.driver

    @property
    def overlap(self) -> bool:
        """Whether slices of the model are exchanged while the backward pass goes on, or all at its end."""
        return self._carrier.overlap

    @property
    def n_slices(self) -> int:
        """Number of slices of the model with packets of their own."""
        return self._carrier.n_slices

    @property
    def aborted(self) -> bool:
        """Whether the last round was aborted, since some rank met inf or NaN: then the gradients are NaN on all."""
        return self._carrier.aborted

    @property
    def traffic(self) -> Traffic:
        """This rank's counters."""
        traffic: Traffic = self.driver.traffic
        return traffic

    def total_traffic(self) -> Traffic:
        """Return the sum of all ranks' counters, on every rank. Collective, between two backward passes."""
        traffic: Traffic = self.driver.total_traffic(self.traffic)
        return traffic

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's state of the method: plain tensors and values, by the parameters' plain names."""
        return self._carrier.saved()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; every rank loads its own.

        Raises:
            ValueError: for a state of another method, model or rank. Nothing has changed then.
        """
        self._carrier.load(state_dict)

    def replace(self, method: Algorithm) -> None:
        """Go on with another method, whose memories are empty. Collective, between two backward passes.

        Raises as `attach` does; then the model goes on with the plain mean.
        """
        self.detach()
        self._carrier = self._carrier_of(method)

    def detach(self) -> None:
        """Let the model go back to the plain mean of the gradients. Every rank calls it after the same step."""
        if self._trampoline is not None:
            self._trampoline.rounds = None
        self._carrier.close()

    def __repr__(self) -> str:
        return f"laconic.ddp.Handle({self.algorithm!r}: {_when(self._carrier)})"


def _when(carrier: Carrier) -> str:
    if isinstance(carrier, IdleCarrier):
        return "exchanges nothing"
    if isinstance(carrier, StepCarrier):
        return "exchanges in the optimizer's step"
    if not carrier.overlap:
        return "exchanges at the end of the backward pass"
    return f"exchanges {carrier.n_slices} slice{'s' * (carrier.n_slices != 1)} while the backward pass goes on"
