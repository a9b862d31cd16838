"""A user's own functions, where a name of data, model, task or inner optimizer may stand: `module:function`.

The module is imported from the current folder, or from wherever Python finds it. Importing this file loads no torch.
"""

import importlib
import inspect
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError, Named, OptionError
from laconic.hyperparameters import near_misses
from laconic.lab.processes.place import described

FORM = "module:function"
_TEXT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_own(text: str | None) -> bool:
    """Return whether a text names a function of a user's own, such as "mine:model"."""
    return text is not None and ":" in text


def check_form(text: str) -> None:
    """Raise ValueError for a text that is no `module:function`."""
    module, _, name = text.partition(":")
    if not _TEXT.fullmatch(text) or module.endswith(".py"):
        meant = f"{module.removesuffix('.py').replace('/', '.')}:{name}"
        hint = f", such as {meant}" if module.endswith(".py") or "/" in module else ", such as mine:model"
        raise ValueError(f"must have the form {FORM}{hint if _TEXT.fullmatch(meant) else ', such as mine:model'}")


def own_function(text: str, option: str) -> Callable[..., Any]:
    """Return the function that a text names. Its module is imported, once in a process.

    Raises:
        OptionError: There is no such module or function, or the module raises when it is imported.
    """
    module_name, _, name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: a file here hides no package
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise OptionError(Named(option, text), f": {described(error)}") from error  # it imports what is missing
        raise OptionError(
            Named(option, text), f": there is no module {error.name}, neither here in {os.getcwd()} nor installed"
        ) from None
    except Exception as error:
        raise OptionError(Named(option, text), f": {module_name} raised {described(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [one for one, value in vars(module).items() if inspect.isfunction(value) and not one.startswith("_")]
        where = getattr(module, "__file__", None) or module_name
        raise OptionError(
            Named(option, text), f": {where} has no function {name}; it has {', '.join(known) or 'none'}"
            f"{near_misses(name, known)}",
        )  # fmt: skip
    found: Callable[..., Any] = function
    return found


@contextmanager
def called(text: str, option: str, doing: str = "") -> Iterator[None]:
    """Turn what a user's function raises into one line with the option and the place in the user's file."""
    try:
        yield
    except (LaconicError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise OptionError(Named(option, text), f"{doing} raised {described(error)}") from error


def call(text: str, option: str, *arguments: object, **named: object) -> Any:  # noqa: ANN401 - what the user returns
    """Return what a user's function returns for these arguments.

    Raises:
        OptionError: It cannot be found, does not take the arguments, or raises.
    """
    function = own_function(text, option)
    try:
        inspect.signature(function).bind(*arguments, **named)
    except TypeError as error:
        given = ", ".join([*(type(each).__name__ for each in arguments), *(f"{name}=..." for name in named)])
        raise OptionError(
            Named(option, text), f": {text.partition(':')[2]}{inspect.signature(function)} is called with ({given}): "
            f"{error}",
        ) from None  # fmt: skip
    with called(text, option):
        return function(*arguments, **named)


def takes(text: str, option: str) -> frozenset[str]:
    """Return the names of the arguments that a user's function takes. Raises as `own_function`."""
    return frozenset(inspect.signature(own_function(text, option)).parameters)


def wrong_result(text: str, option: str, result: object, wanted: str) -> OptionError:
    """Return the error for a function that has returned something else."""
    return OptionError(Named(option, text), f" returned {_kind_of(result)}; it must return {wanted}")


def _kind_of(result: object) -> str:
    return "None (is its `return` missing?)" if result is None else f"an object of class {type(result).__name__}"


def described_functions(texts: Mapping[str, str | None]) -> dict[str, int]:
    """Return a hash of the file of each function of a user's own, by a name for it.

    Args:
        texts: By option, its value.
    """
    hashes = {}
    for option, text in texts.items():
        if is_own(text):
            assert text is not None
            file = inspect.getsourcefile(own_function(text, option))
            if file is not None:
                hashes[f"{option} {text}/hash of its file"] = zlib.crc32(Path(file).read_bytes())
    return hashes
