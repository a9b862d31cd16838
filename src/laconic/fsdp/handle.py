"""What `attach` returns."""

from contextlib import AbstractContextManager
from dataclasses import replace
from types import NoneType

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from laconic.contract import Algorithm
from laconic.ddp import handle as of_ddp
from laconic.ddp.carriable import check_trained
from laconic.ddp.idle_carrier import IdleCarrier
from laconic.ddp.settings import Settings
from laconic.drivers.distributed.agreement import agree
from laconic.drivers.distributed.door import ATTACH, entered
from laconic.drivers.distributed.meeting import Meeting, refusals_shown
from laconic.fsdp.carriable import check_carriable, goes_by_step
from laconic.fsdp.shard_automatic import ShardAutomatic
from laconic.fsdp.shard_carrier import ShardCarrier
from laconic.fsdp.shard_step_carrier import ShardStepCarrier
from laconic.fsdp.sharded_model import ShardedModel, check_not_empty, sharded_model
from laconic.fsdp.trampoline import ShardTrampoline
from laconic.statements import state_once
from laconic.torch_compat import timeout_s_of
from laconic.training.automatic import Method, is_auto

_TOPIC, _PURPOSE = "fsdp", "to attach a method to its sharded model"
_MAX_READY_BYTES = 64


class Handle(of_ddp.Handle):
    """A method that is attached to a sharded model; see `attach`, which makes it."""

    holds_shards = True

    def __init__(self, model: object, mesh: DeviceMesh | None, method: Method, settings: Settings) -> None:
        """Begin to carry a method. Collective."""
        self._given, self._mesh = model, mesh
        self._sharded: ShardedModel | None = None
        super().__init__(None, method, settings)

    def _automatic_of(self, method: object) -> ShardAutomatic | None:
        settings = self._settings
        if not is_auto(method, settings.allowed):
            if not isinstance(method, Algorithm):
                raise TypeError(f'method={method!r:.80} must be an algorithm such as laconic.ECSGD(), or "auto"')
            return None
        settings.check()
        automatic = ShardAutomatic(settings.allowed, settings.layout, timeout_s=settings.timeout_s)
        for each in automatic.allowed:
            check_carriable(each, settings)
        return automatic

    def _begun(self, method: Method) -> of_ddp.Carrier:
        carrier = super()._begun(method)
        if isinstance(self.automatic, ShardAutomatic) and self.undecided is not None:
            self.automatic.choose_with(carrier.driver.shards)
        return carrier

    @property
    def _group(self) -> dist.ProcessGroup | None:
        return None if self._sharded is None else self._sharded.group

    def _refusals(self) -> AbstractContextManager[None]:
        return refusals_shown(None, _TOPIC)

    def _go_on(self, method: Algorithm, layout: str) -> None:
        """Go on with a method that was chosen, in a backward pass, while some parameters are full ones."""
        self.detach()
        self._settings = replace(self._settings, layout=layout)
        assert self._sharded is not None
        with entered(ATTACH):
            self._carrier = self._carried(self._sharded, method)
        self._is_attached = True

    def _carrier_of(self, method: Algorithm, called: str = "") -> of_ddp.Carrier:
        settings = self._settings
        with self._refusals():
            check_carriable(method, settings)
            self._sharded = sharded = sharded_model(self._given, self._mesh)
            if sharded is None:
                if not dist.is_initialized() or dist.get_rank() == 0:
                    state_once(f"{called or method.name} exchanges nothing: there is one node")
                return IdleCarrier(method)
            check_not_empty(sharded.parameters)
            assert isinstance(sharded.module, nn.Module)
            check_trained(sharded.module, settings.optimizer)
            self._trampoline = ShardTrampoline.of(sharded.sharded_modules, sharded.group)
        return self._carried(sharded, method, called)

    def _carried(self, sharded: ShardedModel, method: Algorithm, called: str = "") -> of_ddp.Carrier:
        """Return what carries a method, which takes the gradients from now on. Collective."""
        assert self._trampoline is not None
        carrier = _agreed(sharded, method, self._settings)
        self._trampoline.rounds = carrier.rounds
        of_ddp.say_when(carrier, called)
        return carrier

    @property
    def model(self) -> nn.Module | None:
        """The sharded model."""
        module = None if self._sharded is None else self._sharded.module
        return module if isinstance(module, nn.Module) else None


def _agreed(sharded: ShardedModel, method: Algorithm, settings: Settings) -> ShardCarrier | ShardStepCarrier:
    """Return what carries the method, when all ranks of all nodes have it. Collective."""
    meeting = Meeting.of_group(None, _TOPIC)
    timeout_s = timeout_s_of(None) if settings.timeout_s is None else settings.timeout_s
    hyperparameters = {f"{method.name}/{key}": value for key, value in method.settings().items()}
    agree(meeting, {
        "algorithm": method.name, **hyperparameters, "seed": settings.seed, "layout": settings.layout,
        **sharded.settings(), **settings.agreed_choice,
    }, _PURPOSE, timeout_s)  # fmt: skip
    with refusals_shown(None, _TOPIC):
        kind = ShardStepCarrier if goes_by_step(method, settings) else ShardCarrier
        carrier: ShardCarrier | ShardStepCarrier = kind(sharded, method, settings)
    try:
        meeting.gather(None, _PURPOSE, NoneType, _MAX_READY_BYTES, timeout_s)
    except BaseException:
        carrier.close()
        raise
    return carrier
