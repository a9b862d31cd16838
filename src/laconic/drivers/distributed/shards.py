"""Ranks that hold the shards of one replica: a round takes effect on all of them or on none.

Each exchanges its own shard with the ranks that hold the same one elsewhere, over a group of those. Between the shards
only a few numbers travel: why a round is aborted, the square of a norm, totals.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.drivers.distributed.channel import Channel
from laconic.protocol.abort import Abort
from laconic.telemetry.traffic import TRAFFIC_SCHEMA, Traffic

_MAX_TRAFFIC_BYTES = 1 << 20


class Shards:
    """This rank's connection to the other shards of its replica."""

    def __init__(self, ranks: Sequence[int], timeout_s: float) -> None:
        """Connect them. Collective over them.

        Args:
            ranks: the global ranks of a replica, by the number of the shard that they hold.
            timeout_s: how long a rank is waited for, seconds.

        Raises:
            PeerLostError: a rank does not come.
        """
        self.channel = Channel(ranks, timeout_s, 1)
        self.number, self.count = self.channel.rank, self.channel.size

    def verdict(self, aborted: Abort, round_: int) -> Abort:
        """Return why a round is aborted in any shard, if it is: on all ranks alike. Collective over the replica."""
        mark = torch.tensor([aborted.mark])
        self._add_up(mark, f"to end round {round_}")
        return Abort.of_sum(float(mark))

    def norm(self, of_shard: Tensor) -> Tensor:
        """Return the norm of what all shards hold, given that of this one. Collective over the replica."""
        square = of_shard.detach().to("cpu", torch.float64).reshape(1) ** 2
        self._add_up(square, "for the norm of a direction")
        return square.sqrt().reshape(()).to(of_shard)

    def _add_up(self, numbers: Tensor, purpose: str) -> None:
        self.channel.all_reduce(numbers, purpose)
        self.channel.control_bytes += 2 * numbers.nbytes

    def total(self, traffic: Traffic, rounds: int) -> Traffic:
        """Return the sum of the counters that the shards give. Collective over the replica."""
        gathered = self.channel.gather(
            traffic.as_data(), f"total_traffic() after round {rounds}", TRAFFIC_SCHEMA, _MAX_TRAFFIC_BYTES
        )
        one, *others = [Traffic.from_data(counters) for counters in gathered]
        return sum(others, one)
