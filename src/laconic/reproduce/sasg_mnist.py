"""SASG, Table II, MNIST: the uploads and bits of each method to 98 % test accuracy.

Deng, Li, Sun, Lu: Communication-Efficient Distributed Learning via Sparse and Adaptive Stochastic Gradient (SASG),
section VI. 10 workers with a fixed shard and batches of 10 each; 784-512-10 with ReLU, d = 407,050; the largest
1 % of each layer, k = 4,071; learning rate 0.005 on the sum over workers, which is 0.05 on their mean; no momentum, no
decay. One worker's upload is one round. Published bits are 32 per value, without positions and downloads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

from laconic.lab.comparison.cell_process import look_at_cell
from laconic.lab.processes.pool import Figures, PoolTask, Reporter
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.looks import LookPlan
from laconic.lab.runs.settings import RunSettings
from laconic.reproduce.table import PublishedTable, Request, Sheet, SideBySide

_LEARNING_RATE = 0.005
_LAZY = {"alpha": "0.5", "window": "10", "max_delay": "10", "warm_up_rounds": "10", "lr_convention": "sum"}
_SPARSE = {"density": "0.01", "blocks": "layer"}


@dataclass(frozen=True, kw_only=True)
class _Method:
    """The hyper-parameters of a row, and its published figures."""

    set: Mapping[str, str]
    sums: bool
    """Whether the method takes the learning rate on the sum over workers."""
    rounds: int
    """Published rounds to 98 %."""
    bits: float
    """Published bits to 98 %."""
    logged: tuple[int, ...]
    """Rounds to 98 % in the authors' logs, by seed."""


_METHODS = {
    "sgd": _Method(set={}, sums=False, rounds=60400, bits=7.87e11, logged=(69000, 66000, 55000, 56000, 59000)),
    "sparse": _Method(
        set=_SPARSE, sums=False, rounds=67400, bits=8.78e9, logged=(69000, 66000, 55000, 51000, 70000)
    ),
    "lasg": _Method(set=_LAZY, sums=True, rounds=33853, bits=4.41e11, logged=(39520, 33800, 32961, 32653, 32413)),
    "sasg": _Method(
        set=_LAZY | _SPARSE, sums=True, rounds=22823, bits=2.97e9, logged=(27029, 24312, 23791, 21624, 22121)
    ),
}  # fmt: skip
_LOGGED_SEEDS = (1, 19, 31, 44, 80)


@dataclass(frozen=True, kw_only=True)
class SasgMnist(PublishedTable):
    """Rounds and bits to 98 % on MNIST."""

    name: ClassVar[str] = "sasg-table2-mnist"
    title: ClassVar[str] = "uploads and bits to 98 % test accuracy on MNIST: SGD, sparse, LASG, SASG"
    source: ClassVar[str] = "Deng, Li, Sun & Lu, SASG, Table II (FC, MNIST)"
    methods: ClassVar[tuple[str, ...]] = tuple(_METHODS)
    saves_midway: ClassVar[bool] = True
    default_seeds: ClassVar[tuple[int, ...]] = (1,)
    reads_data: ClassVar[bool] = True

    epochs: int = 20
    look_every: int = 100
    """Iterations between two tests."""
    target: float = 0.98
    """The test accuracy to reach."""

    def settings(self) -> Mapping[str, Any]:
        return {
            "workers": 10, "batch_size": 10, "model": "mlp", "partition": "fixed", "layout": "rank0", **asdict(self),
            "lr": {name: self._lr(method) for name, method in _METHODS.items()},
            "set": {name: dict(method.set) for name, method in _METHODS.items()},
        }  # fmt: skip

    @property
    def printed(self) -> Mapping[str, Any]:
        return {
            name: {
                "rounds": method.rounds, "bits": method.bits,
                "rounds_in_the_authors_logs": dict(zip(map(str, _LOGGED_SEEDS), method.logged, strict=True)),
            }
            for name, method in _METHODS.items()
        }  # fmt: skip

    def tasks(self, request: Request) -> list[PoolTask]:
        plans = [self._run(method, seed, request.data) for seed in request.seeds for method in request.methods]
        Experiment(plans[0])  # refuses wrong data here, before any process starts
        return [
            PoolTask(
                label=plan.algorithm if len(request.seeds) == 1 else f"{plan.algorithm} seed {plan.seed}",
                work=rounds_to_target,
                arguments={"settings": plan, "look_every": self.look_every, "target": self.target},
            )
            for plan in plans
        ]

    @staticmethod
    def _lr(method: _Method) -> float:
        return _LEARNING_RATE if method.sums else 10 * _LEARNING_RATE

    def _run(self, name: str, seed: int, data: str | None) -> RunSettings:
        method = _METHODS[name]
        return RunSettings(
            algorithm=name, set=dict(method.set), workers=10, layout="rank0", dataset="mnist", data=data, model="mlp",
            epochs=self.epochs, batch_size=10, lr=self._lr(method), seed=seed, partition="fixed",
        )  # fmt: skip

    def compare(self, found: Sequence[Figures]) -> SideBySide:
        by_method = {name: [one for one in found if one["method"] == name] for name in _METHODS}
        present = {name: runs for name, runs in by_method.items() if runs}
        seeds = sorted({one["seed"] for one in found})
        of = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"
        late = [
            f"{one['method']} (seed {one['seed']}, {one['best_accuracy']:.2%})" for one in found if not one["reached"]
        ]
        notes = [
            f"Measured: {of}. One worker's upload is a round; tested every {self.look_every} iterations. Logs: the "
            "rounds of the 5 seeds in the authors' repository.",
            "Bits are uploads. Printed: 32 per value, without positions. Payload: with positions and flag bits.",
        ]
        if late:
            notes.append(f"> : {self.target:.0%} was not reached in {self.epochs} epochs by {', '.join(late)}.")
        diverged = tuple(f"{one['method']} (seed {one['seed']}): {one['diverged']}" for one in found if _diverged(one))
        return SideBySide(sheets=(self._rounds(present), self._bits(present)), notes=tuple(notes), diverged=diverged)

    def _rounds(self, runs: Mapping[str, Sequence[Figures]]) -> Sheet:
        sgd = runs.get("sgd")
        rows = []
        for name, ours in runs.items():
            method = _METHODS[name]
            ratio = f"{_mean(ours, 'uploads') / _mean(sgd, 'uploads'):.3f}" if sgd else "-"
            rows.append((
                _row_name(name, ours), f"{method.rounds:,}", f"{min(method.logged):,} .. {max(method.logged):,}",
                _lower_bound_mark(ours) + f"{_mean(ours, 'uploads'):,.0f}",
                f"{method.rounds / _METHODS['sgd'].rounds:.3f}", ratio,
                f"{_mean(ours, 'iterations'):,.0f}",
            ))  # fmt: skip
        columns = ("method", "printed", "logs", "measured", "of SGD\nprinted", "of SGD\nmeasured", "iterations")
        return Sheet(title=f"Upload rounds to {self.target:.0%} test accuracy", columns=columns, rows=tuple(rows))

    def _bits(self, runs: Mapping[str, Sequence[Figures]]) -> Sheet:
        rows = tuple(
            (
                _row_name(name, ours), f"{_METHODS[name].bits:.3g}",
                _lower_bound_mark(ours) + f"{_mean(ours, 'paper_bits'):.3g}",
                _lower_bound_mark(ours) + f"{_mean(ours, 'payload_bits'):.3g}",
                _lower_bound_mark(ours) + f"{8 * _mean(ours, 'encoded_bytes'):.3g}",
            )
            for name, ours in runs.items()
        )  # fmt: skip
        columns = ("method", "printed", "measured", "payload", "encoded")
        return Sheet(title=f"Bits up to {self.target:.0%} test accuracy", columns=columns, rows=rows)


def _mean(runs: Sequence[Figures], key: str) -> float:
    return mean(float(run[key]) for run in runs)


def _diverged(run: Figures) -> bool:
    return run.get("diverged") is not None


def _row_name(name: str, runs: Sequence[Figures]) -> str:
    """Return the method's name, marked if a run of it diverged."""
    return f"{name} (diverged)" if any(map(_diverged, runs)) else name


def _lower_bound_mark(runs: Sequence[Figures]) -> str:
    """Return a mark for a lower bound, if a run ended before it reached the target."""
    return "" if all(run["reached"] for run in runs) else "> "


def rounds_to_target(
    report: Reporter, settings: RunSettings, look_every: int, target: float, folder: Path | None = None
) -> Figures:
    """Train until the test accuracy reaches the target, or the epochs end.

    Args:
        report: Gets the progress.
        settings: The run.
        look_every: Iterations between two tests.
        target: The test accuracy to reach.
        folder: Where the run saves itself on the way; None for nowhere.

    Returns:
        The rounds, bits, bytes and accuracies of the run.
    """
    run = look_at_cell(report, settings, LookPlan(every=look_every, target=target), folder)
    looks, last = run["looks"], run["looks"][-1]
    return {
        "method": settings.algorithm,
        "seed": settings.seed,
        "reached": last["test_accuracy"] >= target,
        "diverged": run["diverged"],
        "iterations": last["step"],
        "uploads": last["uploads"],
        "skips": last["skips"],
        "test_accuracy": last["test_accuracy"],
        "best_accuracy": max(look["test_accuracy"] for look in looks),
        "paper_bits": last["paper_bits"],
        "payload_bits": last["payload_bits"],
        "encoded_bytes": last["encoded_bytes"],
        "seconds": run["seconds"],
        "traffic": run["traffic"],
        "curve": [{"iteration": look["step"], **{name: look[name] for name in _CURVE}} for look in looks],
    }


_CURVE = ("aborted_rounds", "uploads", "train_loss", "test_accuracy", "payload_bits")
