"""The mean of dense packets, added up while their chunks land: it counts where it is that of the packets, else not."""

from zlib import crc32

import torch

from laconic.protocol.landing import EachWhileLanding, SumWhileLanding
from laconic.wire import Dense

D, CHUNK = 10, 4


def vectors(n):
    random = torch.Generator().manual_seed(3)
    return {rank: torch.randn(D, generator=random) for rank in range(n)}


def landed(own, coming, order, meanwhile=None):
    """A sum at worker 0's rank, of which chunks have landed in this order: (node, start) each."""
    out = torch.full((D,), torch.nan)
    made = SumWhileLanding(own, {10 + rank: rank for rank in coming}, out, meanwhile)
    for node, start in order:
        made.chunk(node, coming[node - 10][start : start + CHUNK], start)
    return made


def packets(values):
    return {rank: Dense(values=each) for rank, each in values.items()}


def test_the_mean_has_the_bits_of_a_mean_made_afterwards_whatever_the_order_of_the_chunks():
    values = vectors(3)
    expected = (values[0] + 0.0 + values[1] + values[2]) / 3
    orders = [
        [(node, start) for start in (0, 4, 8) for node in (11, 12)],
        [(node, start) for node in (12, 11) for start in (0, 4, 8)],
    ]
    for order in orders:
        made = landed({0: values[0]}, {1: values[1], 2: values[2]}, order).mean_of(packets(values))
        assert made is not None
        assert torch.equal(made[0], expected)
        assert made[1] == float(expected.abs().max())


def test_nothing_counts_before_all_has_landed_or_where_a_packet_is_another_one():
    values = vectors(2)
    order = [(11, 0), (11, 4)]
    assert landed({0: values[0]}, {1: values[1]}, order).mean_of(packets(values)) is None
    made = landed({0: values[0]}, {1: values[1]}, [*order, (11, 8)])
    others = {
        "elsewhere": packets({0: values[0], 1: values[1].clone()}),
        "one is missing": packets({0: values[0]}),
        "shorter": packets({0: values[0], 1: values[1][:8]}),
    }
    for name, other in others.items():
        assert made.mean_of(other) is None, name
    assert made.mean_of(packets(values)) is not None


def test_frames_of_another_type_or_length_are_left_to_be_refused():
    values = vectors(1)
    made = SumWhileLanding({0: values[0]}, {11: 1}, torch.empty(D))
    made.chunk(11, torch.ones(CHUNK, dtype=torch.float64), 0)
    made.chunk(11, torch.ones(CHUNK), D - 1)
    assert made.mean_of(packets(vectors(2))) is None


def test_nan_in_an_earlier_chunk_stays_the_largest_magnitude():
    values = vectors(2)
    values[1][1] = torch.nan
    made = landed({0: values[0]}, {1: values[1]}, [(11, 0), (11, 4), (11, 8)]).mean_of(packets(values))
    assert made is not None
    assert made[1] != made[1]


def test_what_waits_is_done_once_when_the_earliest_chunk_has_landed():
    values, done = vectors(2), []
    made = landed({0: values[0]}, {1: values[1]}, [], lambda: done.append(1))
    assert not made.began
    for start in (0, 4, 8):
        made.chunk(11, values[1][start : start + CHUNK], start)
    assert made.began
    assert done == [1]


def test_frames_that_are_served_one_by_one_have_sums_of_their_own_from_zero():
    values = vectors(2)
    values[0][:2] = -0.0
    each = EachWhileLanding({10: 0, 11: 1}, lambda sender: SumWhileLanding({}, sender, torch.full((D,), torch.nan)))
    for start in (0, 4, 8):
        for rank in (1, 0):
            each.chunk(10 + rank, values[rank][start : start + CHUNK], start)
    for rank, packet in packets(values).items():
        made = each.sums[rank].mean_of({rank: packet})
        assert made is not None
        assert torch.equal(made[0], values[rank])
        assert not made[0][:2].signbit().any() or rank
    again = values[1] + 1
    each.chunk(11, again[:CHUNK], 0)
    assert each.sums[1].mean_of({1: Dense(values=again)}) is None  # the rest has not come


def test_what_is_written_in_place_of_the_mean_has_the_checksum_of_all_chunks():
    own, coming = vectors(2)[0], vectors(2)[1]
    out = torch.empty(D)

    def write(parts, start, stop):
        torch.sub(*parts, out=out[start:stop])
        return float(out[start:stop].abs().max()), crc32(out[start:stop].numpy().tobytes())

    made = SumWhileLanding({0: own}, {11: 1}, out, write=write)
    for start in range(0, D, CHUNK):
        made.chunk(11, coming[start : start + CHUNK], start)
    assert made.mean_of(packets({0: own, 1: coming})) is not None
    assert made.checksum == crc32((own - coming).numpy().tobytes())
    assert landed({0: own}, {1: coming}, [(11, 0)]).checksum is None


def test_of_steps_that_frames_begin_one_after_the_other_only_the_last_one_counts():
    def begin(sender):
        return SumWhileLanding({}, sender, torch.empty(D), write=lambda parts, start, stop: (0.0, 0))

    each = EachWhileLanding({10: 0, 11: 1, 12: 2}, begin)
    for node in (10, 12, 11):
        each.chunk(node, torch.ones(CHUNK), 0)
    assert list(each.sums) == [1]
    nothing = EachWhileLanding({10: 0}, lambda sender: None)
    nothing.chunk(10, torch.ones(CHUNK), 0)
    assert not nothing.sums
