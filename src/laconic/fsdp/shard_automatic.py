"""`"auto"` for a sharded model: the shards measure beside each other, as they will exchange, and take one choice."""

from dataclasses import replace
from typing import Any

from laconic.drivers.distributed.shards import Shards
from laconic.protocol.job import Job
from laconic.training.automatic import Automatic, Chosen, plain

_SHOWN = {"algorithm": str, "layout": str, "reason": str}
_MAX_BYTES = 1 << 14


class ShardAutomatic(Automatic):
    """The choice of a job of one shard, which is that of the first shard for all of them."""

    _shards: Shards | None = None

    def choose_with(self, shards: Shards) -> None:
        """Choose together with the other shards of this replica."""
        self._shards, self.speaks = shards, not shards.number

    def measured(self, job: Job) -> Chosen:
        """Choose for the parameters of all shards. Collective over all ranks; it takes some seconds.

        Raises:
            PeerLostError: A rank is lost.
        """
        chosen, shards = super().measured(job), self._shards
        assert shards is not None, "one node has nothing to choose"
        own = {"algorithm": chosen.algorithm.name, "layout": chosen.layout, "reason": chosen.reason}
        taken: dict[str, Any] = shards.channel.gather(own, "to choose a method", _SHOWN, _MAX_BYTES)[0]
        named = {each.name: each for each in (plain(), *self.allowed)}
        return replace(chosen, algorithm=named[taken["algorithm"]], layout=taken["layout"], reason=taken["reason"])
