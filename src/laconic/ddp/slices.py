"""The slices of a model whose parts of a round begin while the backward pass goes on.

They are runs of consecutive parameters, as long as the buckets of DistributedDataParallel, but they stay when it makes
its buckets anew: so do memories and masks.
"""

from collections.abc import Sequence

from torch.nn.parallel import DistributedDataParallel

_INITIAL_BYTES = 1 << 20  # the bound on the bytes of the earliest bucket, where the user gives none


def slices_of(ddp: DistributedDataParallel, n_bytes: Sequence[int], sizes: Sequence[int]) -> list[range]:
    """Return the parameters of each slice, in the order of the model: they are complete when a bucket is.

    Args:
        ddp: the model.
        n_bytes: of each parameter that is trained.
        sizes: the parameters' numbers of elements. A slice has at least one element.
    """
    caps = _caps_of(ddp)
    are_made_anew = ddp.static_graph or not ddp.find_unused_parameters  # in the order of the gradients: from the end
    order = range(len(sizes))[::-1] if are_made_anew else range(len(sizes))
    runs = [[order[0]]]
    for place in order[1:]:
        run, cap = runs[-1], caps[min(len(runs), len(caps)) - 1]
        if any(sizes[each] for each in run) and sum(n_bytes[each] for each in run) >= cap:
            runs.append([place])
        else:
            run.append(place)
    if len(runs) > 1 and not any(sizes[each] for each in runs[-1]):
        runs[-2] += runs.pop()
    return sorted((range(min(run), max(run) + 1) for run in runs), key=lambda run: run.start)


def _caps_of(ddp: DistributedDataParallel) -> list[int]:
    """Return the bounds on the bytes of buckets, as they are filled: one that has so many is closed.

    The last one is that of all others.
    """
    listed: list[int] = getattr(ddp, "bucket_bytes_cap_list", [])  # since torch 2.13
    return listed or [*([_INITIAL_BYTES] if ddp.bucket_bytes_cap_default else []), ddp.bucket_bytes_cap]
