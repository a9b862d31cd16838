"""Algorithms in a user's own files: importing a file registers what `@laconic.algorithm` decorates in it."""

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from laconic.contract.algorithm import ALGORITHMS, PLUGIN
from laconic.errors import Named, OptionError
from laconic.statements import warn


def load_plugins(paths: Sequence[str]) -> None:
    """Import each Python file once in this process. What is in its folder can be imported by it.

    Raises:
        OptionError: A file is missing, is no Python file, or raises; with the line. Its algorithms are not registered.
    """
    for text in paths:
        path = Path(text).expanduser().resolve()
        if not path.is_file() or path.suffix != ".py":
            raise OptionError(Named("load", text), ": must be an existing Python file that ends in .py")
        name = f"{PLUGIN}{path.stem}_{blake2b(str(path).encode(errors='surrogateescape'), digest_size=4).hexdigest()}"
        if name not in sys.modules:
            _load(path, name, text)


def _load(path: Path, name: str, text: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: a file there hides no package
    before = dict(ALGORITHMS)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        ALGORITHMS.clear()
        ALGORITHMS.update(before)
        if not isinstance(error, Exception | SystemExit):
            raise
        raise OptionError(Named("load", text), f": {_what(error)}{_place(error, path)}") from error
    if ALGORITHMS.keys() == before.keys():
        warn(f'--load {text}: no class in it is decorated by @laconic.algorithm("name"), so it adds no method')


def _what(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it ends the program (exit code {error.code}) when it is imported"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}{f': {message}' if message else ''}"


def _place(error: BaseException, path: Path) -> str:
    """Return the line, and the file if it is another one of the same folder."""
    file, line = str(path), 0
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno or 0
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).parent == path.parent:
                file, line = frame.filename, frame.lineno or 0
    named = Path(file).name
    return f" ({named}, line {line})" if line else f" ({named})"
