"""Signs of servers with a slice each: written as one stream where they are short, and one by one elsewhere."""

import pytest
import torch

from laconic.compressors import signs
from laconic.contract import Reply
from laconic.wire import Signs


def in_a_row(counts, offset, **settings):
    """Packets of random signs, each behind the one before."""
    vector = torch.randn(sum(counts), generator=torch.Generator().manual_seed(len(counts)))
    parts, start = [], 0
    for count in counts:
        parts.append(signs(vector[start : start + count], offset=offset + start, **settings))
        start += count
    return tuple(parts)


def one_by_one(parts):
    return torch.cat([part.dense() for part in parts])


@pytest.mark.parametrize("counts", [(500, 500), (1, 7, 64, 65), (8, 8), (3, 1 << 16), (1 << 16, 3)])
def test_an_answer_in_slices_is_their_signs_one_behind_the_other(counts):
    parts, d = in_a_row(counts, 11), sum(counts)
    reply = Reply(delivered=True, parts=parts, count=d, offset=11, empty=lambda: torch.full((d,), 9.0))
    assert torch.equal(reply.dense(), one_by_one(parts))


def test_short_signs_of_all_elements_are_written_as_one_stream():
    parts, full = in_a_row((500, 5, 64), 11), torch.full((600,), 9.0)
    assert Signs.put_in_row(parts, full, 20)
    assert torch.equal(full[20:589], one_by_one(parts))
    assert full[:20].eq(9).all()
    assert full[589:].eq(9).all()


@pytest.mark.parametrize(
    "parts",
    [in_a_row((70, 70), 0, keep=0.5, key=3), in_a_row((1 << 16, 1), 0), in_a_row((70, 70), 0)[::-1]],
    ids=["on a mask", "long", "out of order"],
)
def test_others_are_left_to_be_written_one_by_one(parts):
    full = torch.full((sum(part.count for part in parts),), 9.0)
    assert not Signs.put_in_row(parts, full, 0)
    assert full.eq(9).all()
