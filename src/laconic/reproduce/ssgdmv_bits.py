"""Majority voting, Table 1: the compression ratio of each row, from measured messages.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, Table 1 and section 4.3. ResNet-18 for
CIFAR-10, d = 11,173,962; density 1e-2, swap density 1e-3, 4 bits in the rows with Q, 10 workers. A ratio is 32 d H over
the bits of one message, with H local steps. The bits do not depend on H, so each kind of message is made once: by the
method in the simulator, from random changes, in a round in which the lists of add-drop change as much as possible.
Ratios are of one worker's link and exclude dense first rounds, as in the paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.lab.algorithms import make_algorithm
from laconic.lab.processes.pool import Figures, PoolTask, Reporter
from laconic.protocol.round_inputs import Inputs
from laconic.random_keys import make_key
from laconic.reproduce.resnet18 import layer_sizes
from laconic.reproduce.table import PublishedTable, Request, Sheet, SideBySide

_VOTERS = 3  # the number of voters does not change the bits of a message
_CODES = ("block", "entropy")
_Direction = Literal["up", "down"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A method with its quantizer, which determine the bits of a message."""

    method: str
    bits: int
    """Bits of a quantized value."""
    workers: int
    up: float
    """Uploaded bits per parameter by the formula."""
    down: float
    """Downloaded bits per parameter by the formula."""
    rounds: int = 1
    """Rounds to run; the last one is measured. The first one sends full lists."""

    @property
    def key(self) -> str:
        return f"{self.method} {self.bits}"


_MASK, _VALUES = 0.01 * (7 + 2), 0.01 * 32  # bits per parameter; 7 is log2(1/density) rounded up
_SWAPS = 2 * 0.001 * (10 + 2)
KINDS = (
    Kind(method="ssgd-mv", bits=32, workers=_VOTERS, up=_MASK + _VALUES, down=_MASK + _VALUES),
    Kind(method="ssgd-mv", bits=4, workers=_VOTERS, up=_MASK + 0.01 * 4, down=_MASK + _VALUES),
    Kind(method="ssgd-mv-rs", bits=32, workers=_VOTERS, up=_MASK + _VALUES, down=_MASK + _VALUES),
    Kind(method="ssgd-mv-ad", bits=32, workers=_VOTERS, up=_SWAPS + _VALUES, down=_MASK + _VALUES, rounds=3),
    Kind(method="ssgd-mv-ad", bits=4, workers=_VOTERS, up=_SWAPS + 0.01 * 4, down=_MASK + _VALUES, rounds=3),
    # At worst no two workers send the same parameter: 10 % of all, each with 4 + 2 bits and a value.
    Kind(method="ssgd-topk", bits=32, workers=10, up=_MASK + _VALUES, down=0.1 * (4 + 2) + 0.1 * 32),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A published row."""

    name: str
    kind: str
    """The `key` of its kind of message."""
    steps: int
    """Local steps per exchange."""
    up: float
    """Published compression ratio of uploads."""
    down: float
    """Published compression ratio of downloads."""


ROWS = (
    Row(name="MV", kind="ssgd-mv 32", steps=1, up=78, down=78),
    Row(name="MV-L2", kind="ssgd-mv 32", steps=2, up=156, down=156),
    Row(name="MV-L4", kind="ssgd-mv 32", steps=4, up=312, down=312),
    Row(name="MV-L8", kind="ssgd-mv 32", steps=8, up=624, down=624),
    Row(name="MV-L8-Q", kind="ssgd-mv 4", steps=8, up=2000, down=624),
    Row(name="MV-RS-L4", kind="ssgd-mv-rs 32", steps=4, up=312, down=312),
    Row(name="MV-RS-L8", kind="ssgd-mv-rs 32", steps=8, up=624, down=624),
    Row(name="AD", kind="ssgd-mv-ad 32", steps=1, up=93, down=78),
    Row(name="AD-L2", kind="ssgd-mv-ad 32", steps=2, up=186, down=156),
    Row(name="AD-L4", kind="ssgd-mv-ad 32", steps=4, up=372, down=312),
    Row(name="AD-L4-Q", kind="ssgd-mv-ad 4", steps=4, up=2000, down=312),
    Row(name="AD-L8", kind="ssgd-mv-ad 32", steps=8, up=745, down=624),
    Row(name="AD-L8-Q", kind="ssgd-mv-ad 4", steps=8, up=4000, down=624),
    Row(name="top-K", kind="ssgd-topk 32", steps=1, up=78, down=8.4),
)


@dataclass(frozen=True, kw_only=True)
class SsgdMvBits(PublishedTable):
    """Compression ratios of measured messages."""

    name: ClassVar[str] = "ssgdmv-table1-bits"
    title: ClassVar[str] = "compression ratios of sparse SGD with majority voting, up and down, from real messages"
    source: ClassVar[str] = "Ozfatura, Ozfatura & Gunduz, Distributed Sparse SGD with Majority Voting, Table 1"

    parameters: int = sum(layer_sizes())

    def settings(self) -> Mapping[str, Any]:
        return {**asdict(self), "density": 0.01, "swap_density": 0.001, "codes": _CODES}

    @property
    def printed(self) -> Mapping[str, Any]:
        return {row.name: {"local_steps": row.steps, "up": row.up, "down": row.down} for row in ROWS}

    def tasks(self, request: Request) -> list[PoolTask]:
        return [
            PoolTask(label=f"{kind.key} bits", work=message_bits, arguments={"kind": kind, "d": self.parameters})
            for kind in KINDS
        ]

    def compare(self, found: Sequence[Figures]) -> SideBySide:
        by_kind = {f"{one['method']} {one['bits']}": one for one in found}
        return SideBySide(
            sheets=(self._sheet("up", by_kind), self._sheet("down", by_kind)),
            notes=(
                "Ratios are of one exchange of a worker: 32 d H, the bits of dense vectors of its H local steps, over "
                "those of its message. Paper: measured paper_bits. Payload: every bit that the receiver needs, with "
                "the paper's block code. Wire: full frames, with headers and checksums.",
                "* printed figures that differ from the formula: MV-L8-Q is 1969 and AD-L8 is 744. (For RS-L8 the "
                "paper also gives the bits of L4; its ratio is right.)",
                "top-K down: the paper assumes that no two of 10 workers send the same parameter; measured is the "
                "actual union.",
            ),
        )

    def _sheet(self, direction: _Direction, by_kind: Mapping[str, Figures]) -> Sheet:
        rows = []
        for row in (row for row in ROWS if row.kind in by_kind):
            kind = next(kind for kind in KINDS if kind.key == row.kind)
            printed, per_parameter = (row.up, kind.up) if direction == "up" else (row.down, kind.down)
            formula = 32 * row.steps / per_parameter
            # Published figures have three digits or are truncated to integers; larger differences are misprints.
            star = "" if abs(printed - formula) < 0.006 * formula and int(formula) <= printed < formula + 0.5 else "*"
            bits = by_kind[row.kind][direction]
            measured = (
                bits["block"]["paper"], bits["block"]["payload"], bits["block"]["wire"], bits["entropy"]["wire"]
            )  # fmt: skip
            rows.append((
                row.name, f"{printed:g}{star}", _digits(formula),
                *(_digits(32 * self.parameters * row.steps / float(one)) for one in measured),
            ))  # fmt: skip
        columns = ("row", "printed", "formula", "paper", "payload", "wire", "wire, entropy code")
        return Sheet(title=f"Compression ratio {direction}", columns=columns, rows=tuple(rows))


def _digits(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.1f}"


def message_bits(report: Reporter, kind: Kind, d: int) -> Figures:
    """Measure the bits of one worker's messages in one round.

    Args:
        report: Gets the progress.
        kind: The kind of message.
        d: The number of parameters.

    Returns:
        The bits by direction and code, as the wire meter counts them.
    """
    figures: Figures = {"method": kind.method, "bits": kind.bits, "workers": kind.workers, "d": d, "up": {}, "down": {}}
    steps = len(_CODES) * kind.rounds
    start = torch.zeros(d)
    for number, code in enumerate(_CODES):
        algorithm = make_algorithm(kind.method, {"bits": str(kind.bits), "code": code})
        simulated = Simulated(algorithm, spec=ModelSpec.of_sizes(d), n_workers=kind.workers, layout="rank0")
        before: dict[_Direction, dict[str, float]] = {}
        for round_ in range(kind.rounds):
            report(number * kind.rounds + round_, steps, f"{code} code")
            before = _totals(simulated)
            simulated.round(lambda rank, round_=round_: _inputs(d, rank, round_, start), lr=0.1)  # type: ignore[misc]
        for direction, totals in _totals(simulated).items():
            figures[direction][code] = {
                meter: (total - before[direction][meter]) / kind.workers for meter, total in totals.items()
            }  # fmt: skip
    report(steps, steps, "")
    return figures


def _inputs(d: int, rank: int, round_: int, start: Tensor) -> Inputs:
    generator = torch.Generator().manual_seed(make_key(0, "data", rank, round_, "change") >> 1)
    return Inputs(vector=torch.randn(d, generator=generator), parameters=start)


def _totals(simulated: Simulated) -> dict[_Direction, dict[str, float]]:
    """Return the bits that all workers have sent and received so far, by direction."""
    directions: tuple[_Direction, ...] = ("up", "down")
    totals: dict[_Direction, dict[str, float]] = {}
    for direction in directions:
        counts = [worker.meter.counts[direction] for worker in simulated.workers]
        totals[direction] = {
            "paper": sum(count.paper_bits for count in counts),
            "payload": sum(count.payload_bits for count in counts),
            "wire": 8 * sum(count.wire_bytes + count.local_bytes for count in counts),
        }
    return totals
