"""Models: their sizes, their shapes, and that a seed is all their first parameters depend on."""

import pytest
import torch
from torch import nn

from laconic.lab.models import MODELS, OF_TEXT, WITH_BATCH_NORM, build
from laconic.reproduce.resnet18 import layer_sizes
from support.inputs import over_inputs


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("linear", (1, 28, 28), 7_850),
        ("linear", (123,), 1_240),
        ("mlp", (1, 28, 28), 407_050),
        ("mlp", (1, 8, 8), 38_410),
        ("cnn", (1, 28, 28), 206_922),
        ("cnn", (3, 32, 32), 268_650),
        ("cnn", (1, 8, 8), 22_602),
        ("resnet18", (3, 32, 32), 11_173_962),
    ],
)
def test_a_model_has_the_published_number_of_parameters(name, shape, count):
    assert n_parameters(build(name, shape, 10, seed=0)) == count


@pytest.mark.parametrize(
    ("name", "shape", "width", "count"),
    [
        ("mlp", (1, 28, 28), 64, 50_890),
        ("mlp", (3, 32, 32), 64, 197_322),
        ("resnet18", (3, 32, 32), 16, 701_466),
        ("resnet18", (3, 32, 32), 8, 176_402),
    ],
)
def test_a_model_of_another_width_has_the_number_of_parameters_that_is_known_for_it(name, shape, width, count):
    assert n_parameters(build(name, shape, 10, seed=0, width=width)) == count


def test_resnet50_has_the_published_number_of_parameters_with_its_1000_classes():
    with torch.device("meta"):  # the sizes alone: its values would take 100 MB
        assert n_parameters(MODELS["resnet50"]((3, 224, 224), 1000)) == 25_557_032


def test_the_parameters_of_resnet18_are_those_that_the_published_tables_count():
    sizes = [parameter.numel() for parameter in build("resnet18", (3, 32, 32), 10, seed=0).parameters()]
    assert sorted(sizes) == sorted(layer_sizes())


def test_a_width_is_refused_by_models_that_have_none_and_below_1():
    with pytest.raises(
        ValueError, match="width=8 is for model='mlp' or resnet18 or resnet50 or transformer; cnn has no such choice"
    ):
        build("cnn", (1, 8, 8), 10, seed=0, width=8)
    with pytest.raises(ValueError, match="mlp: width=0 must be at least 1"):
        build("mlp", (4,), 2, seed=0, width=0)


def small(name: str, shape: tuple[int, ...], n_classes: int, seed: int) -> nn.Module:
    """A model, narrow where its full width takes seconds."""
    return build(name, shape, n_classes, seed, **({"width": 4} if name in WITH_BATCH_NORM else {}))


@pytest.mark.parametrize("name", sorted(MODELS.keys() - OF_TEXT))
@over_inputs("shape", ((1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 1, 5)))
def test_a_model_gives_one_score_per_class_and_a_gradient_to_every_parameter(name, shape):
    model = small(name, shape, 7, seed=1)
    scores = model(torch.linspace(-1, 1, 4 * shape[0] * shape[1] * shape[2]).reshape(4, *shape))
    assert scores.shape == (4, 7)
    assert scores.dtype == torch.float32
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert bool(list(model.buffers())) == (name in WITH_BATCH_NORM)


def test_the_transformer_has_the_known_number_of_parameters_and_scores_for_each_character():
    assert n_parameters(build("transformer", (64,), 65, seed=0)) == 1_016_513
    model = build("transformer", (6,), 9, seed=0, width=8)
    scores = model(torch.arange(6).view(1, 6))
    assert scores.shape == (1, 6, 9)
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    for shape, width, words in (((3, 4), 8, r"must be \(window,\)"), ((6,), 6, "width=6 must be a multiple of 4")):
        with pytest.raises(ValueError, match=words):
            build("transformer", shape, 9, seed=0, width=width)


def test_no_score_of_the_transformer_depends_on_what_follows():
    model = build("transformer", (6,), 9, seed=0, width=8)
    one, other = model(torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 8, 0, 7]]))
    assert torch.equal(one[:3], other[:3])
    assert not torch.equal(one[3], other[3])


@pytest.mark.parametrize("name", sorted(MODELS.keys() - OF_TEXT))
def test_equal_seeds_give_equal_models_and_other_seeds_other_ones(name):
    def flat(seed: int) -> torch.Tensor:
        return nn.utils.parameters_to_vector(small(name, (1, 8, 8), 10, seed).parameters())

    assert torch.equal(flat(3), flat(3))
    assert not torch.equal(flat(3), flat(4))
    assert not torch.equal(flat(3), flat(3 + 2**32))


def test_building_leaves_the_global_generator_alone_and_does_not_heed_it():
    before = torch.random.get_rng_state()
    one = build("mlp", (4,), 2, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    second = build("mlp", (4,), 2, seed=0)
    torch.random.set_rng_state(before)
    for a, b in zip(one.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_refused_model_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="cnn"):
        build("cnn", (123,), 2, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_cnn_refuses_flat_features_and_names_the_models_that_take_them():
    with pytest.raises(
        ValueError, match=r"input_shape=\(123,\) must be \(channels, height, width\); take mlp or linear"
    ):
        build("cnn", (123,), 2, seed=0)


def test_a_misspelt_model_is_answered_with_near_misses_and_all_names():
    with pytest.raises(ValueError, match="did you mean linear") as caught:
        build("liner", (4,), 2, seed=0)
    assert all(name in str(caught.value) for name in MODELS)


@pytest.mark.parametrize(
    ("shape", "n_classes", "seed", "words"),
    [
        ((), 2, 0, r"input_shape=\(\) must have at least one size"),
        ((3, 0), 2, 0, r"input_shape=\(3, 0\)"),
        ((3,), 1, 0, "n_classes=1 must be at least 2"),
        ((3,), 2, -1, "seed=-1 must be 0 to"),
        ((3,), 2, 2**63, "seed=9223372036854775808 must be 0 to"),
    ],
)
def test_an_argument_outside_its_range_is_refused_by_name(shape, n_classes, seed, words):
    with pytest.raises(ValueError, match=words):
        build("linear", shape, n_classes, seed)
