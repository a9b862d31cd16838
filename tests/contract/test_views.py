"""What the two sides can read and call in a round."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import laconic
from laconic.buffer_pool import VectorPool
from laconic.contract import Inbox, ModelSpec, Scratch, Server, Worker
from laconic.wire import Dense
from support.jobs import job_of
from support.memories import memory_of

SPEC = ModelSpec.of_sizes(6)


def sides(round_=3, seed=1):
    scratch = Scratch(VectorPool(SPEC.d, torch.float32))
    common = {"n_workers": 2, "spec": SPEC, "seed": seed, "round": round_, "scratch": scratch}
    memories = [memory_of(SPEC.d, torch.float32) for _ in range(3)]
    return (
        Worker(rank=0, memory=memories[0], **common),
        Worker(rank=1, memory=memories[1], **common),
        Server(rank=0, memory=memories[2], **common),
    )


def test_a_shared_key_is_the_same_on_all_sides_and_another_for_each_round_seed_and_stream():
    keys = {
        side.shared_key(stream)
        for round_ in (3, 4) for seed in (1, 2) for side in sides(round_, seed) for stream in ("sketch", "graph")
    }  # fmt: skip
    assert len(keys) == 2 * 2 * 2
    own = {side.key("sketch") for side in sides()}
    assert len(own | {sides()[0].shared_key("sketch")}) == 4


def test_every_packet_of_an_inbox_counts_as_one_sample():
    packets = {rank: Dense(values=torch.ones(6)) for rank in (2, 0)}
    assert Inbox(packets, n_workers=3, empty=lambda: torch.zeros(6)).weights == {0: 1, 2: 1}


def test_a_method_whose_results_are_delayed_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Delayed(laconic.SGD):
        delay: ClassVar[int] = 1

    with pytest.raises(ValueError, match="delay=1 must be 0"):
        job_of(Delayed(), SPEC)
