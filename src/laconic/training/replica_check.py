"""A check that replicas are equal, by a comparison of their hashes."""

from collections import Counter
from hashlib import blake2b

from torch import Tensor

from laconic.drivers.distributed.channel import Channel
from laconic.errors import ReplicaError


def compare_replicas(channel: Channel, parameters: Tensor | None, round_: int) -> None:
    """Raise ReplicaError if replicas differ in a single bit. Collective: every rank must call it.

    Args:
        channel: the connection to the other ranks.
        parameters: this rank's parameters (d,); None if it trains no model.
        round_: number of the round, for the error.

    Raises:
        ReplicaError: naming the ranks that differ from the majority.
    """
    mine = "" if parameters is None else hash_of(parameters)
    gathered = channel.gather(mine, f"for its parameters' hash, round {round_}", str, max_bytes=64)
    hashes = {rank: other for rank, other in enumerate(gathered) if other}
    counts = Counter(hashes.values())
    right = max(hashes, key=lambda rank: (counts[hashes[rank]], -rank))  # the majority's; on a tie, the lowest rank's
    wrong = [rank for rank in hashes if hashes[rank] != hashes[right]]
    if wrong:
        raise ReplicaError(
            f"after round {round_} the parameters of rank {' and rank '.join(map(str, wrong))} differ from rank "
            f"{right}'s; were they changed outside of step(), or do the inner optimizers' states or options differ?"
        )


def hash_of(vector: Tensor) -> str:
    """Return a hash of a vector's bits."""
    return blake2b(vector.cpu().numpy().tobytes(), digest_size=16).hexdigest()
