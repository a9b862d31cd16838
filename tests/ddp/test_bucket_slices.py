"""Slices begin when their bucket is there: they are the buckets that DistributedDataParallel fills."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from laconic.ddp.slices import slices_of
from laconic.torch_compat import GradBucket

_N_LAYERS, _WIDTH = 8, 362  # half a megabyte each


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.filterwarnings("ignore:You passed find_unused_parameters=true")
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"bucket_cap_mb": 1.25}, {"bucket_cap_mb": 2}, {"bucket_cap_mb": 25},
        {"bucket_cap_mb": 1.25, "find_unused_parameters": True}, {"find_unused_parameters": True},
        {"bucket_cap_mb": 1.25, "find_unused_parameters": True, "static_graph": True},
        {"bucket_cap_mb_list": [0.75, 2, 1]},
    ],
    ids=str,
)  # fmt: skip
def test_slices_are_the_buckets_that_are_filled(settings):
    if "bucket_cap_mb_list" in settings:
        try:
            DistributedDataParallel(nn.Linear(1, 1), **settings)
        except TypeError:
            pytest.skip("this torch takes one bound for all buckets")
    net = nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH) for _ in range(_N_LAYERS)))
    ddp = DistributedDataParallel(net, **settings)
    place_of = {id(parameter): place for place, parameter in enumerate(net.parameters())}
    filled: list[list[int]] = []

    def note(_: None, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        filled.append(sorted(place_of[id(parameter)] for parameter in bucket.parameters()))
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    ddp.register_comm_hook(None, note)
    for _ in range(3):  # buckets are made anew after the earliest pass
        filled.clear()
        ddp(torch.randn(2, _WIDTH)).sum().backward()
    parameters = list(net.parameters())
    slices = slices_of(ddp, [each.nbytes for each in parameters], [each.numel() for each in parameters])
    assert [list(run) for run in reversed(slices)] == filled
