"""Published tables by name, run here and compared with the published figures."""

from laconic.hyperparameters import near_misses
from laconic.reproduce.sasg_memory import SasgMemory
from laconic.reproduce.sasg_mnist import SasgMnist
from laconic.reproduce.ssgdmv_bits import SsgdMvBits
from laconic.reproduce.table import PublishedTable

TABLES: dict[str, PublishedTable] = {table.name: table for table in (SasgMnist(), SasgMemory(), SsgdMvBits())}


def table_of(name: str) -> PublishedTable:
    """Return the table of this name.

    Raises:
        ValueError: The name is unknown. The message lists near misses.
    """
    if name not in TABLES:
        known = sorted(TABLES)
        raise ValueError(f"unknown table {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    return TABLES[name]
