"""What servers store, and how long uploads take by their bytes alone.

Deng, Li, Sun, Lu: SASG, Table III: ResNet-18 for CIFAR-10, 10 workers of which one is the server, links of 1 Gbit/s.
"""

from laconic.lab.processes.pool import Reporter
from laconic.reproduce.resnet18 import layer_sizes
from laconic.reproduce.sasg_memory import stored_bytes

_MIB = 2**20
_WORKERS, _BIT_S, _ITERATIONS = 10, 1e9, 100


def memory_and_seconds(report: Reporter) -> dict[str, float]:
    """Return what the server stores of uploads, measured in one round, and the seconds of 100 iterations' uploads."""
    found: dict[str, float] = {}
    for number, name in enumerate(("lasg", "sasg")):
        report(number, 2, name)
        figures = stored_bytes(lambda done, total, note: None, name, layer_sizes(), _WORKERS)
        found[f"{name}, MiB of values"] = figures["value_bytes"] / _MIB
        found[f"{name}, MiB of positions"] = figures["position_bytes"] / _MIB
    report(2, 2, "")
    sizes = layer_sizes()
    selected = sum(max(1, size // 100) for size in sizes)
    uploads = (_WORKERS - 1) * _ITERATIONS  # 9 remote workers share the server's link
    for name, bits in (("sgd", 32 * sum(sizes)), ("sparse", 64 * selected)):
        found[f"{name}, seconds of 100 iterations"] = bits * uploads / _BIT_S
    return found
