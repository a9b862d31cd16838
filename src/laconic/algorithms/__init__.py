"""One file per algorithm. Importing this package imports every module in it, so a new file registers itself."""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
