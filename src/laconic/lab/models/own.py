"""A model from a user's own function."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from laconic.errors import Named, OptionError
from laconic.lab.own_functions import call, called, takes, wrong_result

_PROBE = 2  # examples


def own_model(text: str, input_shape: Sequence[int], n_classes: int) -> nn.Module:
    """Return the model of the function that a text names.

    Args:
        text: `module:function`. It gets `input_shape`, `n_classes` or both if it has arguments of these names.
        input_shape: The shape of one input, without the leading n.
        n_classes: The number of scores per input.

    Raises:
        OptionError: The function cannot be found, raises, or returns no model with parameters to train.
    """
    offered = {"input_shape": tuple(input_shape), "n_classes": n_classes}
    taken = takes(text, "model")
    model = call(text, "model", **{name: value for name, value in offered.items() if name in taken})
    check_module(text, "model", model)
    assert isinstance(model, nn.Module)
    return model


def check_module(text: str, option: str, model: object) -> None:
    """Refuse what is no model with float32 parameters to train on the CPU.

    Raises:
        OptionError: It is none.
    """
    if not isinstance(model, nn.Module):
        raise wrong_result(text, option, model, "a torch.nn.Module")
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    if not trained:
        raise OptionError(Named(option, text), " returned a model without parameters to train")
    other = next((name for name, each in trained if each.dtype != torch.float32 or each.device.type != "cpu"), None)
    if other is not None:
        raise OptionError(
            Named(option, text), f" returned a model whose parameter {other} is not float32 on the CPU; --device moves "
            "a model",
        )  # fmt: skip


@torch.no_grad()
def check_scores(text: str, model: nn.Module, inputs: Tensor, n_classes: int) -> None:
    """Refuse a model that does not give a score for each class. It is tried on two examples, and left as it was.

    Args:
        text: `module:function`.
        model: The model.
        inputs: Train inputs, (n, *shape).
        n_classes: The number of classes.

    Raises:
        OptionError: It raises, or its scores have another shape.
    """
    modes = [(module, module.training) for module in model.modules()]
    probe = inputs[:_PROBE]
    wanted = (*probe.shape, n_classes) if probe.dtype == torch.int64 else (len(probe), n_classes)
    with (
        torch.random.fork_rng(devices=[]),
        called(text, "model", f": for inputs of shape {tuple(probe.shape)} its model"),
    ):
        scores = model.eval()(probe)
    for module, was in modes:
        module.training = was
    if not isinstance(scores, Tensor):
        raise OptionError(Named("model", text), f": its model gave a {type(scores).__name__}, and no tensor of scores")
    if tuple(scores.shape) != wanted:
        raise OptionError(
            Named("model", text), f": its model gave scores of shape {tuple(scores.shape)} for inputs of shape "
            f"{tuple(probe.shape)}; for {n_classes} classes they must have shape {wanted}",
        )  # fmt: skip
