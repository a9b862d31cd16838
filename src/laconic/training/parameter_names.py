"""The names of a model's parameters, as they are without what wraps it."""

from torch import nn
from torch.nn.parallel import DataParallel

from laconic.torch_compat import NAME_PARTS_OF_WRAPPERS, compiled_module


def plain_module(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile` and `DataParallel`, which change neither parameters nor gradients."""
    while (inside := model.module if isinstance(model, DataParallel) else compiled_module(model)) is not None:
        model = inside
    return model


def names_of(model: nn.Module | None) -> dict[int, str]:
    """Return the names of the model's parameters by `id`; a tied parameter has the first of its names."""
    names = {}
    for given, parameter in () if model is None else plain_module(model).named_parameters():
        name = given
        for part in NAME_PARTS_OF_WRAPPERS:
            name = name.replace(part, "")
        names[id(parameter)] = name
    return names
