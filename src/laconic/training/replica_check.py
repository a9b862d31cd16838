"""Whether replicas that should be equal are: a comparison of their hashes."""

from collections import Counter
from hashlib import blake2b

from torch import Tensor

from laconic.drivers.distributed.channel import Channel
from laconic.errors import ReplicaError


def compare_replicas(channel: Channel, parameters: Tensor | None, round_: int) -> None:
    """Refuse to go on with replicas that differ in a single bit. Collective: every rank must call it.

    parameters: this rank's, (d,); None where it trains no model. Raises ReplicaError.
    """
    mine = "" if parameters is None else hash_of(parameters)
    gathered = channel.gather(mine, f"for its parameters' hash, round {round_}")
    hashes = {rank: other for rank, other in enumerate(gathered) if other}
    counts = Counter(hashes.values())
    right = max(hashes, key=lambda rank: (counts[hashes[rank]], -rank))  # what most have; of equals, the first
    wrong = [rank for rank in hashes if hashes[rank] != hashes[right]]
    if wrong:
        raise ReplicaError(
            f"after round {round_} the parameters of rank {' and rank '.join(map(str, wrong))} differ from rank "
            f"{right}'s; were they changed outside of step(), or is the inner optimizer's state or rate not the same?"
        )


def hash_of(vector: Tensor) -> str:
    """A hash of a vector's bits."""
    return blake2b(vector.cpu().numpy().tobytes(), digest_size=16).hexdigest()
