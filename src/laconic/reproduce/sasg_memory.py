"""SASG, Table III, memory: the server's storage of 10 workers' last uploads.

Deng, Li, Sun, Lu: SASG, section VI. ResNet-18 for CIFAR-10, d = 11,173,962; the largest 1 % of each layer,
k = 111,723. The paper counts the values, 4 bytes each. Here values and positions are measured at a server after one
round of the simulator. The table's other columns, times on the authors' cluster, are not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch

from laconic.algorithms.lasg import LASG
from laconic.algorithms.sasg import SASG
from laconic.contract import Algorithm, ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.lab.processes.pool import Figures, PoolTask, Reporter
from laconic.protocol.round_inputs import Inputs
from laconic.random_keys import make_key
from laconic.reproduce.resnet18 import layer_sizes
from laconic.reproduce.table import PublishedTable, Request, Sheet, SideBySide

_MIB = 2**20
_PRINTED_MIB = {"lasg": 426.25, "sasg": 4.26}
_STORED = {
    "lasg": {"values": "stored."},
    "sasg": {"values": "values.", "positions": "positions."},
}  # prefixes of the memories' names


@dataclass(frozen=True, kw_only=True)
class SasgMemory(PublishedTable):
    """Bytes at the server after one round."""

    name: ClassVar[str] = "sasg-table3-memory"
    title: ClassVar[str] = "server memory for stored uploads, ResNet-18 and 10 workers: LASG, SASG"
    source: ClassVar[str] = "Deng, Li, Sun & Lu, SASG, Table III (memory)"
    methods: ClassVar[tuple[str, ...]] = ("lasg", "sasg")

    layers: tuple[int, ...] = field(default_factory=layer_sizes)
    workers: int = 10

    def settings(self) -> Mapping[str, Any]:
        return {**asdict(self), "set": {"lasg": LASG().settings(), "sasg": SASG().settings()}}

    @property
    def printed(self) -> Mapping[str, Any]:
        return {name: {"mib": mib} for name, mib in _PRINTED_MIB.items()}

    def tasks(self, request: Request) -> list[PoolTask]:
        return [
            PoolTask(
                label=name, work=stored_bytes,
                arguments={"method": name, "layers": self.layers, "workers": self.workers},
            )
            for name in request.methods
        ]  # fmt: skip

    def compare(self, found: Sequence[Figures]) -> SideBySide:
        rows = tuple(
            (
                one["method"], f"{_PRINTED_MIB[one['method']]:.2f}", f"{one['formula_bytes'] / _MIB:.2f}",
                *(f"{one[what] / _MIB:.2f}" for what in ("value_bytes", "position_bytes", "held_bytes")),
            )
            for one in found
        )  # fmt: skip
        columns = ("method", "printed", "formula", "values", "positions", "held in all")
        d = sum(self.layers)
        return SideBySide(
            sheets=(Sheet(title="MiB at the server for stored uploads", columns=columns, rows=rows),),
            notes=(
                f"d = {d:,}, {self.workers} workers. Formula: 4 bytes per value. Positions are int32; the "
                "paper omits them.",
            ),
        )


def stored_bytes(report: Reporter, method: str, layers: Sequence[int], workers: int) -> Figures:
    """Run one round of the method, and return the bytes of the uploads that its server stores."""
    algorithm: Algorithm = LASG() if method == "lasg" else SASG()
    spec = ModelSpec.of_sizes(*layers)
    report(0, 1, "")
    simulated = Simulated(algorithm, spec=spec, n_workers=workers, layout="rank0")
    generator = torch.Generator().manual_seed(make_key(0, "data", 0, 0, "gradient") >> 1)
    gradient = torch.randn(spec.d, generator=generator)  # one for all workers: the stored bytes do not depend on it
    start = torch.zeros(spec.d)
    simulated.round(lambda rank: Inputs(vector=gradient, parameters=start), lr=0.01)
    memory = simulated.servers[0].view.memory
    parts = {
        what: [memory[name] for name in memory if name.startswith(prefix)] for what, prefix in _STORED[method].items()
    }
    stored = [tensor for tensors in parts.values() for tensor in tensors]
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in stored}
    n_selected = algorithm.n_selected(spec) if isinstance(algorithm, SASG) else spec.d
    report(1, 1, "")
    return {
        "method": method,
        "formula_bytes": 4 * workers * n_selected,
        "value_bytes": sum(tensor.nbytes for tensor in parts["values"]),
        "position_bytes": sum(tensor.nbytes for tensor in parts.get("positions", [])),
        "held_bytes": sum(held.values()),
    }
