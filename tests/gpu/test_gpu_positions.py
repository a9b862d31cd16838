"""Streams of positions: written and read."""

import pytest
import torch

from laconic.wire import decode_positions, encode_positions
from support.gpu_inputs import is_in_part, over_parts
from support.inputs import over_inputs

MAX_COUNT = 1 << 32
LONGEST = 20_000  # bits of zeros, in a test


@pytest.fixture
def positions(twins):
    return twins("position_streams")


def evenly_apart(count, k):
    """k of `count` positions, the first and the last among them."""
    between = torch.randperm(count - 2, generator=torch.Generator().manual_seed(k))[: k - 2] + 1
    return torch.cat([torch.tensor([0, count - 1]), between]).sort().values


SUPPORTS = {
    "none": (torch.empty(0, dtype=torch.int64), 10),
    "one of one": (torch.tensor([0]), 1),
    "the last of most": (torch.tensor([MAX_COUNT - 1]), MAX_COUNT),
    "all": (torch.arange(1025), 1025),
    "both ends": (torch.tensor([0, 1, 2, MAX_COUNT - 2, MAX_COUNT - 1]), MAX_COUNT),
    "few": (evenly_apart(9999, 7), 9999),
    "many": (evenly_apart(9999, 1500), 9999),
    "far apart": (torch.arange(300) * 10_000_000, MAX_COUNT),
}


@over_inputs("width", range(1, 33))
def test_numbers_of_every_width_are_written_and_read(positions, width):
    for k in (0, 1, 1031):
        numbers = torch.randint(0, 1 << width, (k,), generator=torch.Generator().manual_seed(width))
        numbers[:1] = (1 << width) - 1
        stream, _ = positions.alike("put_numbers", numbers, width)
        assert torch.equal(positions.alike("take_numbers", stream, k, width)[0], numbers)


@over_parts
@over_inputs("name", SUPPORTS)
@over_inputs("from_last", [False, True])
def test_runs_are_written_and_read(positions, name, from_last, part):
    where, count = SUPPORTS[name]
    for place, width in enumerate((0, 1, 5, 11, 18, 31, 32)):
        if not is_in_part(part, list(SUPPORTS).index(name), from_last, place):
            continue
        step = 1 << width if from_last else max(1, (1 << width) - 1)
        if count // step > LONGEST:
            continue
        n_bits = len(where) * (1 + width) + count // step
        for longer in (n_bits, n_bits + 45):
            stream, used = positions.alike("put_runs", where, width, step, from_last, longer)
            taken, used_again = positions.alike("take_runs", stream, longer, len(where), width, step, count, from_last)
            assert torch.equal(taken, where)
            assert used_again == used


@over_inputs("name", SUPPORTS)
@over_inputs("code", ["list", "block", "rice"])
def test_positions_are_coded_and_decoded_where_they_are(device, name, code):
    where, count = SUPPORTS[name]
    expected, expected_bits = encode_positions(where, count, code)
    data, n_bits = encode_positions(where.to(device), count, code)
    assert (data.device.type, n_bits) == (device.type, expected_bits)
    assert torch.equal(data.cpu(), expected)
    again = decode_positions(data, n_bits, len(where), count, code)
    assert again.device.type == device.type
    assert torch.equal(again.cpu(), where)
