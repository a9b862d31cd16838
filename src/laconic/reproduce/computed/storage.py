"""What servers store, and how long uploads take by their bytes alone.

Deng, Li, Sun, Lu: SASG, Table III: ResNet-18 for CIFAR-10, 10 workers of which one is the server, links of 1 Gbit/s.
"""

from laconic.lab.processes.pool import Reporter
from laconic.reproduce.resnet18 import layer_sizes
from laconic.reproduce.sasg_memory import stored_bytes

_MIB = 2**20
_WORKERS, _BIT_S, _ITERATIONS = 10, 1e9, 100


def stored_uploads(report: Reporter) -> dict[str, float]:
    """Return the MiB that the server stores of uploads, measured in one round."""
    found: dict[str, float] = {}
    for number, name in enumerate(("lasg", "sasg")):
        report(number, 2, name)
        figures = stored_bytes(lambda done, total, note: None, name, layer_sizes(), _WORKERS)
        found[f"{name}, MiB of values"] = figures["value_bytes"] / _MIB
        found[f"{name}, MiB of positions"] = figures["position_bytes"] / _MIB
    report(2, 2, "")
    return found


def upload_seconds(report: Reporter) -> dict[str, float]:
    """Return the seconds of the uploads of 100 iterations: 9 remote workers share the server's link."""
    report(0, 1, "")
    sizes = layer_sizes()
    selected = sum(max(1, size // 100) for size in sizes)
    uploads = (_WORKERS - 1) * _ITERATIONS
    seconds = {"sgd": 32 * sum(sizes) * uploads / _BIT_S, "sparse": 64 * selected * uploads / _BIT_S}
    report(1, 1, "")
    return {f"{name}, seconds of 100 iterations": one for name, one in seconds.items()}
