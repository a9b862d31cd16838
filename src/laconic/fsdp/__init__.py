"""Methods for models that `fully_shard` has sharded: `attach`."""

from laconic.fsdp.attach import attach as attach
from laconic.fsdp.handle import Handle as Handle

__all__ = ["Handle", "attach"]
