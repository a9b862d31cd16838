"""A long slice on its way around a ring: it is read once when it leaves, and made once when it has come."""

from zlib import crc32

import pytest
import torch

from laconic.algorithms.csgd_ring import CSGDRing
from laconic.contract import ModelSpec
from laconic.protocol.exchanges import RankSessions, run_rank
from laconic.protocol.round_inputs import Inputs
from laconic.training.vector_sources import VectorCopy
from laconic.wire import LEAD_BYTES, LONG_BYTES
from support.jobs import job_of

D = 600_001
MIDDLE = 300_001


class Ring:
    """Two workers whose round has begun, and what they ask for."""

    def __init__(self):
        self.gradients = [torch.randn(D, generator=torch.Generator().manual_seed(rank)) for rank in range(2)]
        job = job_of(CSGDRing(), ModelSpec.of_sizes(D), n_workers=2)
        self.ranks = [RankSessions(job, rank) for rank in range(2)]
        self._requests = [
            run_rank(rank, 0, inputs_of(gradient), 0.1, phase=lambda what: None)
            for rank, gradient in zip(self.ranks, self.gradients, strict=True)
        ]
        self.asked = [next(each) for each in self._requests]

    def swap(self, meanwhile=lambda: None):
        """Carry out an exchange, of which the frames come in one chunk each."""
        frames = [asked.outgoing[1 - rank].clone() for rank, asked in enumerate(self.asked)]
        meanwhile()
        for rank, (asked, came) in enumerate(zip(self.asked, reversed(frames), strict=True)):
            asked.landing.chunk(1 - rank, came[LEAD_BYTES:].view(torch.float32), 0)
            asked.take(1 - rank, came)
        self.asked = [each.send(None) for each in self._requests]

    def results(self):
        """End the round, and return what each worker applies."""
        ended = []
        for rank, requests in enumerate(self._requests):
            with pytest.raises(StopIteration) as stop:
                requests.send(None)
            ended.append(stop.value.value.of(rank))
        return ended


def inputs_of(gradient):
    return Inputs(vector=VectorCopy([gradient[:1000], gradient[1000:]]), parameters=torch.zeros(D))


def test_a_worker_s_own_slice_leaves_with_the_checksum_of_the_pass_that_gathered_it():
    ring = Ring()
    assert 4 * (D - MIDDLE) >= LONG_BYTES
    for rank, part in enumerate((slice(0, MIDDLE), slice(MIDDLE, D))):
        frame = ring.asked[rank].outgoing[1 - rank]
        assert frame.checksum == crc32(ring.gradients[rank][part].numpy().tobytes())


def test_a_slice_that_is_complete_is_divided_while_it_comes():
    ring = Ring()
    ring.swap()

    def forget_what_travels_on():
        for rank in ring.ranks:
            rank.worker.me.gradient.zero_()

    ring.swap(meanwhile=forget_what_travels_on)
    one, other = ring.results()
    assert torch.equal(one, (ring.gradients[0] + ring.gradients[1]) / 2)
    assert torch.equal(other, one)
