"""What a model's parameters are: names, shapes, places in the vector, and slices of it."""

import pytest
import torch

from laconic.contract import ModelSpec
from laconic.training.flat_parameters import FlatParameters

SPEC = ModelSpec(names=("conv", "bias", "none", "scale", "head"), shapes=((2, 3, 2), (5,), (0, 4), (), (3, 4)))


def test_sizes_and_offsets_are_those_of_the_flat_vector():
    assert SPEC.d == 30
    assert SPEC.sizes == (12, 5, 0, 1, 12)
    assert SPEC.offsets == (0, 12, 17, 17, 18)
    assert SPEC.block_sizes == (12, 5, 1, 12)


def test_matrices_are_views_of_rows_and_columns_and_the_rest_are_vectors():
    vector = torch.arange(30.0)
    assert [(one.name, one.rows, one.columns) for one in SPEC.matrices] == [("conv", 2, 6), ("head", 3, 4)]
    conv, head = (one.of(vector) for one in SPEC.matrices)
    assert conv.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    head[0, 0] = -1
    assert vector[18] == -1
    assert [one.of(vector).tolist() for one in SPEC.vectors] == [[12, 13, 14, 15, 16], [17]]


def test_a_model_of_given_sizes_has_no_matrices():
    spec = ModelSpec.of_sizes(3, 0, 4)
    assert (spec.d, spec.sizes, spec.matrices) == (7, (3, 0, 4), ())
    assert len(set(spec.names)) == 3


def test_a_tensor_that_is_not_all_in_a_slice_counts_as_a_vector_named_by_its_range():
    part = SPEC.part(10, 10)
    assert part.names == ("conv[10:12]", "bias", "scale", "head[0:2]")
    assert part.shapes == ((2,), (5,), (), (2,))
    assert part.matrices == ()
    assert SPEC.part(18, 12) == ModelSpec(names=("head",), shapes=((3, 4),), offset=18)
    assert (part.offset, part.stop) == (10, 20)
    assert part.part(2, 5) == SPEC.part(12, 5), "a slice of a slice"


def test_slices_that_follow_each_other_cover_the_vector():
    for width in (1, 7):
        starts = range(0, 30, width)
        parts = [SPEC.part(start, min(width, 30 - start)) for start in starts]
        assert [part.d for part in parts] == [min(width, 30 - start) for start in starts]
        assert all(part.sizes == part.block_sizes for part in parts), "none is empty"
    assert SPEC.part(0, 30) is SPEC
    assert SPEC.part(4, 0).d == 0


@pytest.mark.parametrize(("offset", "size"), [(-1, 3), (0, 31), (30, 1), (3, -1)])
def test_a_slice_outside_the_vector_is_refused(offset, size):
    with pytest.raises(ValueError, match=r"must be within 0 \.\. 29"):
        SPEC.part(offset, size)


def test_a_name_without_a_shape_is_refused():
    with pytest.raises(ValueError, match="2 names for 1 shapes"):
        ModelSpec(names=("a", "b"), shapes=((3,),))


def test_an_optimizers_parameters_have_the_names_and_shapes_of_the_model():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    flat = FlatParameters(torch.optim.SGD(net.parameters(), lr=0.1), net)
    assert flat.spec == ModelSpec(
        names=("0.weight", "0.bias", "1.weight", "1.bias"), shapes=((2, 3), (2,), (1, 2), (1,))
    )
    assert flat.spec.d == flat.d == 11
