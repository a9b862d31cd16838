"""Samples of changed votes."""

import torch
from hypothesis import strategies as st

from laconic.wire import VoteChange
from support.packet_strategies import INDICES, KindSamples, codes, counts, firsts, index_lists

DROPPED = torch.tensor([0, 2, 3, 4, 7])


@st.composite
def vote_changes(draw) -> VoteChange:
    count = draw(counts)
    listed = draw(st.integers(1, count))
    dropped = draw(index_lists(listed))
    added = draw(index_lists(count, dropped.numel()))
    return VoteChange(added=added, dropped=dropped, count=count, listed=listed, offset=draw(firsts), code=draw(codes))


SAMPLES = KindSamples(
    kind=VoteChange,
    packets=vote_changes(),
    about=lambda offset, count: VoteChange(
        added=torch.arange(1), dropped=torch.arange(1), count=count, listed=1, offset=offset
    ),
    n_fields=9,
    can_be_split=False,
    scales="nothing",
    samples={
        "vote change": VoteChange(added=INDICES, dropped=DROPPED, count=30, listed=9, offset=4),
        "vote change by gaps": VoteChange(added=INDICES, dropped=DROPPED, count=15, listed=8, code="rice"),
    },
)
