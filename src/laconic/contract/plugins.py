"""Algorithms in a user's own files: importing a file registers what `@laconic.algorithm` decorates in it."""

import importlib.util
import sys
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from laconic.errors import Named, OptionError


def load_plugins(paths: Sequence[str]) -> None:
    """Import each Python file once in this process.

    Raises OptionError for a file that is missing or is no Python file. Errors of the file itself are not caught.
    """
    for text in paths:
        path = Path(text).expanduser().resolve()
        if not path.is_file() or path.suffix != ".py":
            raise OptionError(Named("load", text), ": must be an existing Python file that ends in .py")
        name = f"laconic_plugin_{path.stem}_{blake2b(str(path).encode(), digest_size=4).hexdigest()}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, path
        assert spec.loader is not None, path
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
