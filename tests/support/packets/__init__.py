"""Samples of every kind of packet, one file each. A new kind needs a new file here, and no list knows it."""

import pkgutil
from importlib import import_module

from support.packet_strategies import KindSamples

BY_KIND: dict[str, KindSamples] = {}  # by the kind's name

for _file in pkgutil.iter_modules(__path__):
    _found: KindSamples = import_module(f"{__name__}.{_file.name}").SAMPLES
    BY_KIND[_found.kind.name] = _found
