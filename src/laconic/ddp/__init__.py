"""Methods for models in DistributedDataParallel: `attach`."""

from laconic.ddp.attach import attach as attach
from laconic.ddp.handle import Handle as Handle
