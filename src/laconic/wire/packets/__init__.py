"""Packet kinds, one file each. Importing this package imports every file in it, so a new file enters its kind."""

import pkgutil
from importlib import import_module

from laconic.wire.packets.packet import KINDS, Packet

__all__ = ["KINDS"]

for _file in pkgutil.iter_modules(__path__):
    for _kind in vars(import_module(f"{__name__}.{_file.name}")).values():
        if isinstance(_kind, type) and issubclass(_kind, Packet) and "kind" in vars(_kind):
            _known = KINDS.setdefault(_kind.kind, _kind)
            assert _known is _kind, f"{_kind.name} and {_known.name}: both are kind {_kind.kind}"
