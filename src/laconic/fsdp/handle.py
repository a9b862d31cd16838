"""What `attach` returns."""

from types import NoneType

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from laconic.contract import Algorithm
from laconic.ddp import handle as of_ddp
from laconic.ddp.carriable import check_overlap, check_trained, why_not
from laconic.ddp.idle_carrier import IdleCarrier
from laconic.ddp.settings import Settings
from laconic.drivers.distributed.agreement import agree
from laconic.drivers.distributed.meeting import Meeting, refusals_shown
from laconic.fsdp.shard_carrier import ShardCarrier
from laconic.fsdp.shard_step_carrier import ShardStepCarrier
from laconic.fsdp.sharded_model import ShardedModel, check_not_empty, sharded_model
from laconic.fsdp.trampoline import ShardTrampoline
from laconic.protocol.layout import has_dedicated_server
from laconic.statements import state_once
from laconic.torch_compat import timeout_s_of
from laconic.training.automatic import Method

_TOPIC, _PURPOSE = "fsdp", "to attach a method to its sharded model"
_MAX_READY_BYTES = 64


class Handle(of_ddp.Handle):
    """A method that is attached to a sharded model; see `attach`, which makes it."""

    holds_shards = True

    def __init__(self, model: object, mesh: DeviceMesh | None, method: Algorithm, settings: Settings) -> None:
        """Begin to carry a method. Collective."""
        self._given, self._mesh = model, mesh
        self._sharded: ShardedModel | None = None
        super().__init__(None, method, settings)

    def _begun(self, method: Method) -> of_ddp.Carrier:
        return self._carrier_of(method)

    def _carrier_of(self, method: Method, called: str = "") -> of_ddp.Carrier:
        settings = self._settings
        with refusals_shown(None, _TOPIC):
            if not isinstance(method, Algorithm):
                raise TypeError(f"method={method!r:.80} must be an algorithm such as laconic.ECSGD()")
            _check_carriable(method, settings)
            self._sharded = sharded = sharded_model(self._given, self._mesh)
            if sharded is None:
                if not dist.is_initialized() or dist.get_rank() == 0:
                    state_once(f"{method.name} exchanges nothing: there is one node")
                return IdleCarrier(method)
            check_not_empty(sharded.parameters)
            assert isinstance(sharded.module, nn.Module)
            check_trained(sharded.module, settings.optimizer)
            self._trampoline = trampoline = ShardTrampoline.of(sharded.sharded_modules, sharded.group)
        carrier = _agreed(sharded, method, settings)
        trampoline.rounds = carrier.rounds
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
        **sharded.settings(),
    }, _PURPOSE, timeout_s)  # fmt: skip
    with refusals_shown(None, _TOPIC):
        kind = ShardStepCarrier if _goes_by_step(method, settings) else ShardCarrier
        carrier: ShardCarrier | ShardStepCarrier = kind(sharded, method, settings)
    try:
        meeting.gather(None, _PURPOSE, NoneType, _MAX_READY_BYTES, timeout_s)
    except BaseException:
        carrier.close()
        raise
    return carrier


def _check_carriable(algorithm: Algorithm, settings: Settings) -> None:
    """Raise ValueError for a method that cannot be attached to a sharded model."""
    settings.check()
    reasons = {
        "its server takes each gradient as it arrives, and no rank waits for another": algorithm.is_asynchronous,
        "its server holds the model and steps it": algorithm.server_steps,
        "it evaluates each mini-batch at two points": algorithm.second_gradient,
    }
    if reason := next((reason for reason, holds in reasons.items() if holds), ""):
        raise ValueError(
            f"method: {algorithm.name} does not go with fully_shard: {reason}; take another method, such as ec-sgd, or "
            "laconic.DistributedOptimizer with the plain module"
        )
    if settings.optimizer is None and settings.local_steps != 1:
        raise ValueError(f"local_steps={settings.local_steps} are steps of an optimizer; pass optimizer=")
    if settings.optimizer is None and (reason := why_not(algorithm)):
        raise ValueError(f"method: a backward pass alone cannot carry {algorithm.name}: {reason}; pass optimizer=")
    check_overlap(algorithm, settings)
    if has_dedicated_server(settings.layout, by_arrival=False):
        raise ValueError(f'layout="{settings.layout}": its last rank trains nothing; use "rank0" or "auto"')


def _goes_by_step(algorithm: Algorithm, settings: Settings) -> bool:
    """Return whether the optimizer's step exchanges, and not the backward pass."""
    return settings.local_steps != 1 or bool(why_not(algorithm, knows_lr=True))
