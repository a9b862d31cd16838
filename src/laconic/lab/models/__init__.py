"""Models by name, with initial parameters that depend on the seed alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from laconic.contract import ModelSpec
from laconic.errors import Named, OptionError
from laconic.hyperparameters import near_misses
from laconic.lab.defaults import SEED_BOUND
from laconic.lab.models.feedforward import cnn, linear, mlp
from laconic.lab.models.own import check_scores, own_model
from laconic.lab.models.resnet import resnet18, resnet50
from laconic.lab.models.transformer import transformer
from laconic.lab.own_functions import is_own
from laconic.random_keys import make_key

__all__ = ["MODELS", "OF_TEXT", "WITH_BATCH_NORM", "build", "check_choices", "check_kind", "check_scores", "spec_of"]

# Name -> maker. The first line of a maker's docstring describes the model; its keyword arguments are the options that
# it takes.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "linear": linear,
    "mlp": mlp,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "transformer": transformer,
}

WITH_BATCH_NORM = frozenset(["resnet18", "resnet50"])
OF_TEXT = frozenset(["transformer"])
"""Models whose inputs are windows of characters, and that give scores for each of them."""


def check_kind(name: str, *, is_text: bool) -> None:
    """Refuse a model of text for other inputs, and the other way round.

    Raises:
        OptionError: They do not go together.
    """
    if not is_own(name) and is_text != (name in OF_TEXT):
        fitting = [other for other in sorted(MODELS) if is_text == (other in OF_TEXT)]
        what = "a text, and this model is for numbers" if is_text else "no text, and this model is for characters"
        raise OptionError(Named("model", name), f": the data set is {what}; take {' or '.join(fitting)}")


def check_choices(name: str, choices: Mapping[str, int]) -> None:
    """Refuse options that a model does not take.

    Raises:
        OptionError: naming the option, and the models that it is for.
    """
    for option, value in choices.items():
        takers = [other for other, maker in MODELS.items() if option in inspect.signature(maker).parameters]
        if name not in takers:
            raise OptionError(
                Named(option, value), " is for ", Named("model", takers[0]), *(f" or {other}" for other in takers[1:]),
                f"; {name} has no such choice, so leave it out",
            )  # fmt: skip


def build(name: str, input_shape: Sequence[int], n_classes: int, seed: int, **choices: int) -> nn.Module:
    """Make a model with PyTorch's default initialization, without changing the global random generators.

    Args:
        name: A key of MODELS, or `module:function` of a user's own.
        input_shape: The shape of one input, without the leading n.
        n_classes: The number of scores per input, at least 2.
        seed: 0 to 2**63 - 1; equal seeds give bit-equal parameters.
        **choices: Keyword arguments of its maker, such as `width`, each at least 1.

    Returns:
        A module on the CPU, (n, *input_shape) float32 -> (n, n_classes) float32 scores before softmax. A model of text
        has (n, t) int64 -> (n, t, n_classes).

    Raises:
        ValueError: The name is unknown, or an argument is out of range.
    """
    shape = tuple(int(size) for size in input_shape)
    if name not in MODELS and not is_own(name):
        known = sorted(MODELS)
        raise ValueError(f"unknown model {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    check_choices(name, choices)
    if not shape or min(shape) < 1:
        raise ValueError(f"{name}: input_shape={shape} must have at least one size, and none below 1")
    if n_classes < 2:
        raise ValueError(f"{name}: n_classes={n_classes} must be at least 2")
    for option, value in choices.items():
        if value < 1:
            raise ValueError(f"{name}: {option}={value} must be at least 1")
    if not 0 <= seed < SEED_BOUND:
        raise ValueError(f"{name}: seed={seed} must be 0 to 2**63 - 1")
    # Only the CPU generator is seeded: torch.manual_seed would reseed every GPU too, and forking those would start
    # CUDA in processes that do not use it.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(make_key(seed, "model", 0, 0, "init"))
        return own_model(name, shape, n_classes) if is_own(name) else MODELS[name](shape, n_classes, **choices)


def spec_of(model: nn.Module) -> ModelSpec:
    """Return the names and shapes of the model's parameters."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    return ModelSpec(names=names, shapes=tuple(tuple(parameter.shape) for parameter in parameters))
