"""A length or a count that a peer promises costs a reader no memory beyond that of its own vector."""

import contextlib
import resource
from pathlib import Path

import pytest
import torch

from laconic.wire import HEADER_BYTES
from support import packets as packets_of_kinds
from support.frame_bytes import patched, with_promise
from support.hostile_outcomes import MAX_COUNT, believed
from support.inputs import failing_at
from support.sample_packets import samples, samples_by_kind

SAMPLES = samples()
BY_KIND = samples_by_kind()
PACKETS = [name for kind, frames in BY_KIND.items() if kind != "control" for name in frames]

# A vector as long as they promise has a mask as long, or no values at all.
MASKED = {"kept signs", "no sign kept", "kept values", "no value kept", "scaled kept signs", "no sign kept, scaled",
          "sparse without values"}  # fmt: skip

every_packet_kind = pytest.mark.parametrize("kind", packets_of_kinds.BY_KIND)


@contextlib.contextmanager
def little_memory(n_bytes: int = 64 << 20):
    """Refuse this process more than `n_bytes` of new memory, so that a large allocation fails instead of passing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the size of this process")
def test_a_promise_of_much_is_refused_before_a_buffer_is_made():
    torch.ones(1 << 16).sum()  # whatever torch sets up once is set up
    with little_memory():
        with pytest.raises(RuntimeError, match="alloc"):
            torch.ones(8 << 30, dtype=torch.uint8)  # the limit works; former tests may have left less than that
        for name in PACKETS:
            data = patched(SAMPLES[name], HEADER_BYTES, "I", 0)
            for wrong in (2**32 - 1, 2**31, 2**28):
                assert believed(patched(data, HEADER_BYTES + 4, "I", wrong), MAX_COUNT) is None
                if name not in MASKED:
                    assert believed(patched(data, HEADER_BYTES + 4, "I", wrong), 1 << 32) is None
            for wrong in (2**31, 2**47):
                assert believed(with_promise(data, payload_bytes=wrong), 1 << 32) is None
        for size, blocks in ((1, 2**32 - 1), (0, 2**32 - 1), (2**32 - 1, 1), (0, 2**20), (1, 2**20)):
            data = SAMPLES["blocks of 4"]
            for at, value in ((4, 2**32 - 1), (0, 0), (8, size), (12, blocks)):
                data = patched(data, HEADER_BYTES + at, "I", value)
            assert believed(data, 1 << 32) is None


@every_packet_kind
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the size of this process")
def test_no_number_in_a_payload_makes_a_reader_allocate_more_than_its_own_vector_needs(kind):
    torch.ones(1 << 16).sum()  # whatever torch sets up once is set up
    with little_memory():
        for name, data in BY_KIND[kind].items():
            for at in range(HEADER_BYTES, len(data) - 3):
                for wrong in (2**32 - 1, 2**31, 2**20, 2**18):
                    with failing_at(name=name, at=at, wrong=wrong):
                        believed(patched(data, at, "I", wrong), 1 << 20)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the size of this process")
def test_a_mask_costs_no_more_than_the_readers_own_vector():
    data = patched(SAMPLES["no sign kept"], HEADER_BYTES + 4, "I", 1 << 20)
    with little_memory():
        believed(data, max_count=1 << 20)
