"""The memory of frames is reused, but never while a tensor or an array shares it."""

import copy
import gc
import platform
import subprocess
import sys

import pytest
import torch

from laconic.buffer_pool import BUFFER_POOL, BufferPool, VectorPool
from laconic.wire import Dense, Frame, Header, decode, encode


def frame_of(values):
    return encode(Frame(header=Header(role="server", rank=0, round=0), packet=Dense(values=values)))


def test_a_buffer_is_reused_when_the_last_tensor_over_it_is_gone():
    pool = BufferPool()
    borrowed = pool.borrow(100_000)
    place = borrowed.data_ptr()
    part = borrowed[8:24].view(torch.float32)
    part.fill_(2.0)
    del borrowed
    other = pool.borrow(100_000)
    assert other.data_ptr() != place
    assert part.tolist() == [2.0] * 4
    del part
    assert pool.borrow(100_000).data_ptr() == place


def test_a_buffer_that_only_a_numpy_array_uses_is_not_reused():
    pool = BufferPool()
    seen = pool.borrow(100_000).fill_(7).numpy()
    gc.collect()
    pool.borrow(100_000).fill_(1)
    assert (seen == 7).all()


def test_a_buffer_serves_a_little_longer_and_a_shorter_frame_but_not_a_much_shorter_one():
    pool = BufferPool()
    place = pool.borrow(200_000).data_ptr()
    assert pool.borrow(220_000).data_ptr() == place
    assert pool.borrow(120_000).data_ptr() == place
    short = pool.borrow(100_000)
    assert short.data_ptr() != place
    assert short.numel() == 100_000


def test_a_buffer_that_is_not_borrowed_any_more_is_dropped_when_a_new_one_is_allocated():
    pool = BufferPool()
    pool.borrow(1 << 20)
    for _ in range(300):
        pool.borrow(100_000)
    held = pool.borrow(100_000)
    another = pool.borrow(100_000)
    assert held.data_ptr() != another.data_ptr()
    assert [buffer.numel() for *_, buffer in pool._free] == []


def test_a_small_buffer_is_new_memory_of_its_own_length():
    pool = BufferPool()
    one, other = pool.borrow(100), pool.borrow(100)
    assert one.numel() == other.numel() == 100
    assert one.data_ptr() != other.data_ptr()
    del one, other
    assert pool._free == []


def test_frames_of_one_length_take_turns_in_the_same_memory_and_what_was_read_of_one_stays():
    BUFFER_POOL._free.clear()  # of what other tests have returned
    d = 50_000
    frames = [frame_of(torch.full((d,), float(number))) for number in range(2)]
    read = decode(frames[0], d).packet.dense()
    indices = {frame.data_ptr() for frame in frames}
    frames.clear()
    later = [frame_of(torch.full((d,), 9.0)) for _ in range(2)]
    assert len(indices & {frame.data_ptr() for frame in later}) == 1
    assert torch.equal(read, torch.zeros(d))


def test_long_vectors_of_a_pool_begin_at_cache_lines_share_nothing_and_outlive_it():
    count = 1_000_003  # 8 of them are more than a slab
    pool = VectorPool(count, torch.float32)
    vectors = [pool.take().fill_(number) for number in range(9)]
    vectors += [pool.take(torch.float64).fill_(9), copy.deepcopy(pool).take().fill_(10)]
    del pool
    gc.collect()
    assert {vector.data_ptr() % 64 for vector in vectors} == {0}
    assert [vector.untyped_storage().nbytes() for vector in vectors] == [count * v.element_size() for v in vectors]
    assert [(vector == number).all() for number, vector in enumerate(vectors)] == [True] * 11


def test_long_vectors_begin_at_different_lines_of_a_page_whatever_pools_they_are_of():
    pools = [VectorPool(count, torch.float32) for count in (300_000, 20_000_000)]  # a slab holds many, or one
    vectors = [pool.take(dtype) for _ in range(8) for pool in pools for dtype in (torch.float32, torch.float64)]
    starts = [vector.data_ptr() % 4096 for vector in vectors]
    assert len(set(starts)) == len(starts) == 32
    assert {start % 64 for start in starts} == {0}


STEPS = """
import resource

import torch

from laconic.buffer_pool import VectorPool

sizes = [1 << 21] * 20
pool = VectorPool(sum(sizes), torch.float32)
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    gradients = []
    for size in sizes:
        gradients.append(torch.ones(size))
        activation = torch.ones(100_000)
    del activation
    while gradients:
        gradients.pop(0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to retain")
def test_gradients_that_are_freed_at_once_take_no_new_pages_in_the_next_step():
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    n_faults = [*map(int, run.stdout.split())]
    assert n_faults[0] > 20 << 11  # a page for each 4 KiB
    assert sum(n_faults[4:]) < n_faults[0] / 4
