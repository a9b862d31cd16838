"""One file an algorithm. Every module of this folder is imported here, so that a new file enters by being there."""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
