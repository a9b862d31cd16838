"""Lengths of blocks: what tuples of them say, at no cost for each block of one size."""

import numpy as np
import pytest
import torch

from laconic.compressors import ScaledSign
from laconic.contract import Accept, ModelSpec
from laconic.kernels.api import BlockLengths
from laconic.protocol.expectation import Expectation
from laconic.wire import ScaledSigns
from support.inputs import over_inputs

UNIFORM = [(5,), (4, 4, 3), (1, 1, 1), (4, 4)]
UNEVEN = [(3, 4), (1, 700, 2), (2, 2, 3), (4, 3, 4)]


@over_inputs("lengths", [(), *UNIFORM, *UNEVEN])
def test_they_are_the_numbers_that_they_are_made_of(lengths):
    blocks = BlockLengths.of(lengths)
    assert tuple(blocks) == lengths
    assert len(blocks) == len(lengths)
    assert blocks.total == sum(lengths)
    assert blocks.longest == max(lengths, default=0)
    assert blocks.edges.tolist() == [0, *np.cumsum(lengths, dtype=int)]
    assert blocks.on(torch.device("cpu")).tolist() == list(lengths)
    assert [blocks[place] for place in range(-len(lengths), 0)] == list(lengths)
    assert list(blocks[1:3]) == list(lengths[1:3])
    assert BlockLengths.of(blocks) is blocks


def test_a_size_is_found_where_one_describes_them():
    assert [BlockLengths.of(lengths).size for lengths in UNIFORM] == [5, 4, 1, 4]
    assert [BlockLengths.of(lengths).size for lengths in UNEVEN] == [0, 0, 0, 0]
    for lengths in UNIFORM:
        assert BlockLengths.of(lengths) == BlockLengths.uniform(lengths[0], sum(lengths))


def test_they_equal_tuples_of_the_same_numbers_as_methods_may_name_them_in_accept():
    for lengths in ((), *UNIFORM, *UNEVEN):
        assert BlockLengths.of(lengths) == lengths
        assert BlockLengths.of((*lengths, 9)) != lengths
    packet = ScaledSign(blocks="layer")(torch.ones(7), spec=ModelSpec.of_sizes(3, 4))
    for lengths, accepted in (((3, 4), True), ((4, 3), False)):
        expectation = Expectation(Accept(ScaledSigns, lengths=lengths), torch.float32, is_split=False)
        assert expectation.holds(packet, (0, "worker", 0, 0), (0, 7)) is accepted, lengths


def test_equal_ones_are_equal_and_hash_alike():
    made = [BlockLengths.of(lengths) for lengths in (*UNIFORM, *UNEVEN)]
    again = [BlockLengths.of(np.array(lengths)) for lengths in (*UNIFORM, *UNEVEN)]
    assert made == again
    assert list(map(hash, made)) == list(map(hash, again))
    assert len(set(made)) == len(made)


def test_a_block_without_elements_is_refused():
    for lengths in ((0,), (3, 0, 2), (-1, 4)):
        with pytest.raises(ValueError, match="a block has at least one"):
            BlockLengths.of(lengths)


def test_there_is_no_block_behind_the_last_one():
    for lengths in ((4, 4, 3), (3, 4)):
        for place in (len(lengths), -len(lengths) - 1):
            with pytest.raises(IndexError, match="block"):
                BlockLengths.of(lengths)[place]


def test_they_are_shown_as_a_tuple_and_many_of_them_in_short():
    assert repr(BlockLengths.of((5,))) == "(5,)"
    assert repr(BlockLengths.of((3, 4))) == "(3, 4)"
    assert repr(BlockLengths.uniform(7, 100)) == "(7, 7, 7, ..., 2: 15 blocks)"
