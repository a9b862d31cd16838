"""The slices of a model whose parts of a round begin while the backward pass goes on.

They are runs of consecutive parameters, as long as the buckets of DistributedDataParallel, but they stay when it makes
its buckets anew: so do memories and masks.
"""

from collections.abc import Sequence

INITIAL_BYTES = 1 << 20
"""The bound on the bytes of the bucket that DistributedDataParallel makes first."""


def slices_of(n_bytes: Sequence[int], sizes: Sequence[int], bucket_bytes: int, *, from_front: bool) -> list[range]:
    """Return the parameters of each slice, in the order of the model.

    Args:
        n_bytes: of each parameter.
        sizes: the parameters' numbers of elements. A slice has at least one element.
        bucket_bytes: a slice that has so many bytes is closed.
        from_front: whether buckets are filled from the model's front, as where unused parameters are looked for; else
            from its end, whose gradients come first.
    """
    order = range(len(sizes)) if from_front else range(len(sizes))[::-1]
    runs, limit = [[order[0]]], min(INITIAL_BYTES, bucket_bytes)
    for place in order[1:]:
        run = runs[-1]
        if any(sizes[each] for each in run) and sum(n_bytes[each] for each in run) >= limit:
            runs.append([place])
            limit = bucket_bytes
        else:
            run.append(place)
    if len(runs) > 1 and not any(sizes[each] for each in runs[-1]):
        runs[-2] += runs.pop()
    return sorted((range(min(run), max(run) + 1) for run in runs), key=lambda run: run.start)
