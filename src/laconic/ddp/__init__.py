"""Methods for models in DistributedDataParallel: `attach`, and `hook` where only a communication hook is taken."""

from laconic.ddp.attach import attach as attach
from laconic.ddp.handle import Handle as Handle
from laconic.ddp.pair import HookState as HookState
from laconic.ddp.pair import hook as hook

__all__ = ["Handle", "HookState", "attach", "hook"]
