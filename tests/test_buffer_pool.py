"""The memory of frames is reused, but never while a tensor or an array shares it."""

import gc

import torch

from laconic.buffer_pool import BufferPool
from laconic.wire import Dense, Frame, Header, decode, encode


def frame_of(values):
    return encode(Frame(header=Header(role="server", rank=0, round=0), packet=Dense(values=values)))


def test_a_buffer_is_reused_when_the_last_tensor_over_it_is_gone():
    pool = BufferPool()
    borrowed = pool.borrow(1000)
    place = borrowed.data_ptr()
    part = borrowed[8:24].view(torch.float32)
    part.fill_(2.0)
    del borrowed
    other = pool.borrow(1000)
    assert other.data_ptr() != place
    assert part.tolist() == [2.0] * 4
    del part
    assert pool.borrow(1000).data_ptr() == place


def test_a_buffer_that_only_a_numpy_array_uses_is_not_reused():
    pool = BufferPool()
    seen = pool.borrow(64).fill_(7).numpy()
    gc.collect()
    pool.borrow(64).fill_(1)
    assert seen.tolist() == [7] * 64


def test_a_buffer_serves_a_little_longer_and_a_shorter_frame_but_not_a_much_shorter_one():
    pool = BufferPool()
    place = pool.borrow(1000).data_ptr()
    assert pool.borrow(1100).data_ptr() == place
    assert pool.borrow(600).data_ptr() == place
    short = pool.borrow(500)
    assert short.data_ptr() != place
    assert short.numel() == 500


def test_a_buffer_that_is_not_borrowed_any_more_is_dropped_when_a_new_one_is_allocated():
    pool = BufferPool()
    pool.borrow(1 << 20)
    for _ in range(300):
        pool.borrow(100)
    held = pool.borrow(100)
    another = pool.borrow(100)
    assert held.data_ptr() != another.data_ptr()
    assert [buffer.numel() for *_, buffer in pool._free] == []


def test_frames_of_one_length_take_turns_in_the_same_memory_and_what_was_read_of_one_stays():
    d = 50_000
    frames = [frame_of(torch.full((d,), float(number))) for number in range(2)]
    read = decode(frames[0], d).packet.dense()
    indices = {frame.data_ptr() for frame in frames}
    frames.clear()
    later = [frame_of(torch.full((d,), 9.0)) for _ in range(2)]
    assert len(indices & {frame.data_ptr() for frame in later}) == 1
    assert torch.equal(read, torch.zeros(d))
