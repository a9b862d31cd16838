"""A warning where several workers bring the same first gradient, since they then train on the same mini-batches.

A script that seeds every rank alike and shuffles without a DistributedSampler does that: N machines compute one thing.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from laconic.drivers.distributed.channel import Channel
from laconic.statements import warn

_SAMPLED = 4096  # elements of each tensor: gradients of different mini-batches differ in nearly all
LAST_TRY = 100  # steps in which a worker's first gradient is looked for


def hash_of_gradient(parameters: Sequence[Tensor]) -> str:
    """Return a hash of the gradients' bits, sampled; an empty text if they are all zero, or one is not finite."""
    digest = blake2b(digest_size=16)
    is_zero = True
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None or gradient.layout != torch.strided or not gradient.numel():
            continue
        flat = gradient.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLED)].to("cpu", torch.float64, copy=True)
        if not bool(sample.isfinite().all()):
            return ""
        is_zero = is_zero and not bool(sample.any())
        digest.update(sample.numpy().tobytes())
    return "" if is_zero else digest.hexdigest()


def warn_of_equal(hashes: Mapping[int, str], who: str) -> None:
    """Warn where several workers have equal hashes, by rank. `who`: "rank" or "worker"."""
    by_hash: dict[str, list[int]] = {}
    for rank, text in hashes.items():
        if text:
            by_hash.setdefault(text, []).append(rank)
    for ranks in by_hash.values():
        if len(ranks) > 1:
            named = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
            warn(
                f"{who}s {named} bring the same first gradient, so they train on the same mini-batches; give each a "
                "share of its own, for instance by torch.utils.data.DistributedSampler, or shuffle with a seed that "
                f"differs from {who} to {who}"
            )
            return


class InitialGradient:
    """Compares the ranks' first gradients over the store, so that no round sends a byte more and no rank waits."""

    def __init__(self, channel: Channel, workers: Sequence[int]) -> None:
        """`workers`: the ranks of the group that train."""
        self._channel, self._workers = channel, workers
        self._is_shown = False
        self._tries = 0

    def show(self, parameters: Sequence[Tensor]) -> None:
        """Show this rank's gradient, if it is its first one."""
        if not self._is_shown and (text := hash_of_gradient(parameters)):
            self._is_shown = True
            self._channel.show("first-gradient", text)

    def is_compared(self) -> bool:
        """Compare the gradients once all ranks have shown theirs. Returns whether there is nothing left to do."""
        self._tries += 1
        hashes = self._channel.shown("first-gradient", self._workers)
        if hashes is not None:
            warn_of_equal(hashes, "rank")
        return hashes is not None or self._tries >= LAST_TRY
