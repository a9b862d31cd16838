"""Fitted exponents of Table 1.1, Table 1.2 and the linear speed-up, on quadratics whose constants are known.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020. A run of T iterations has the learning rate of
its theorem for that T and ends with eps, the mean of ||f'(x)||^2 over its iterates, which the theorem bounds; the fit
is the slope of log T over log(1/eps) by least squares. What was fitted is among the figures, for pictures: "eps, T =
256" and so on.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from laconic.gossip.mixing import Mixing
from laconic.lab.processes.pool import Reporter
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.reproduce.fixed_grid import FixedGrid, offer_fixed_grid
from laconic.reproduce.straight_line import slope_of
from laconic.statements import LaconicWarning

BySeed = dict[str, dict[int, float]]
Points = dict[float, dict[int, float]]
"""eps by what is varied, then by seed."""
SEEDS = (0, 1, 2)
STEPS = (256, 1024, 4096)
STEPS_IN_FULL = (*STEPS, 16_384)
_D = 20


class _Fits:
    """Runs of one item, with their progress."""

    def __init__(self, report: Reporter, rounds: int) -> None:
        """Expect this many rounds of all runs."""
        self._report, self._rounds, self._done = report, rounds, 0
        report(0, rounds, "")

    def eps(self, method: str, *, steps: int, seed: int, workers: int = 1, **choices: Any) -> float:  # noqa: ANN401
        """Return eps of a run of this many steps.

        Args:
            method: The method.
            steps: Steps, each of all workers.
            seed: The seed of the quadratic and the run.
            workers: N.
            **choices: Numbers of the quadratic, and the method's settings as `set`.
        """
        numbers = {name: str(value) for name, value in choices.items() if name != "set"}
        settings = RunSettings(
            algorithm=method, set=choices.get("set", {}), workers=workers, task="quadratic",
            task_set={**numbers, "rounds": str(steps)}, epochs=1, lr="theory", seed=seed,
        )  # fmt: skip

        def count(progress: object) -> None:
            self._done = min(self._done + 1, self._rounds)
            self._report(self._done, self._rounds, f"{method}, {workers} workers")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LaconicWarning)  # workers without noise have one function on purpose
            record = run_simulated(settings, count)
        eps = record.last.mean_squared_gradient
        assert eps is not None
        return eps


_SIGMA_OF_GRID = math.sqrt(_D) / 2  # of the width 1


def _grid(width: float) -> dict[str, Any]:
    """Return what CSGD is run with: the grid in both directions, and its sigma'."""
    sides = {f"{side}.width": str(width) for side in ("compressor", "server_compressor")}
    names = dict.fromkeys(("compressor", "server_compressor"), FixedGrid.name)
    return {"set": {**names, **sides}, "compression_error": width * _SIGMA_OF_GRID}


_ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "gd": ("sgd", {}),
    "sgd": ("sgd", {"noise": 2}),
    "mb-sgd": ("sgd", {"workers": 8, "noise": 3}),
    "csgd": ("csgd", {"workers": 8, **_grid(1.0)}),
    "ec-sgd": ("ec-sgd", {"workers": 8, "disagreement": 10, "compression_error": 10}),
    "dsgd": ("dsgd", {"workers": 8, "disagreement": 3, "curvature_range": 0.5}),
}
FITTED = tuple(_ROWS)


def fit(name: str, steps: Sequence[int] = STEPS) -> Callable[[Reporter], BySeed]:
    """Return a function that fits the exponent of a row of Table 1.1 to runs of so many steps."""

    def fitted(report: Reporter) -> BySeed:
        offer_fixed_grid()
        method, choices = _ROWS[name]
        fits = _Fits(report, len(SEEDS) * sum(steps))
        points = measured(steps, lambda seed, n_steps: fits.eps(method, steps=n_steps, seed=seed, **choices))
        return {"exponent": exponents(points), **named("eps", "T", points)}

    return fitted


def fit_asgd(steps: Sequence[int] = STEPS) -> Callable[[Reporter], BySeed]:
    """Return a function that fits ASGD's exponents in updates: with and without noise; and of eps over tau + 1."""
    by_delay = (2, 4, 8, 16)  # workers: tau + 1

    def fitted(report: Reporter) -> BySeed:
        rounds = sum(updates // 8 + updates // 4 for updates in steps) + sum(STEPS[-1] // n for n in by_delay)
        fits = _Fits(report, len(SEEDS) * rounds)

        def eps(workers: int, noise: float, seed: int, updates: int) -> float:
            return fits.eps("asgd", steps=updates // workers, seed=seed, workers=workers, noise=noise)

        exact = measured(steps, lambda seed, updates: eps(8, 0.0, seed, updates))
        noisy = measured(steps, lambda seed, updates: eps(4, 3.0, seed, updates))
        delayed = measured(by_delay, lambda seed, n: eps(n, 0.0, seed, STEPS[-1]))
        return {
            "exponent": exponents(exact), "exponent with noise": exponents(noisy),
            "exponent of tau + 1": slopes(delayed),
            **named("eps", "T", exact), **named("eps with noise", "T", noisy), **named("eps", "tau + 1", delayed),
        }  # fmt: skip

    return fitted


def fit_rings(report: Reporter) -> BySeed:
    """Return the exponent of eps over rho/(1 - rho) of DSGD, on rings of 4 to 16 at T = 4096."""
    rings = (4, 5, 8, 10, 16)
    fits = _Fits(report, len(SEEDS) * STEPS[-1] * len(rings))

    def eps(seed: int, workers: int) -> float:
        return fits.eps("dsgd", steps=STEPS[-1], seed=seed, workers=workers, disagreement=3, curvature_range=0.5)

    by_ring = measured(rings, eps)
    rho = {n: Mixing.from_text("ring", n).rho for n in rings}
    points = {rho[n] / (1 - rho[n]): by_ring[n] for n in rings}
    return {"exponent of rho/(1 - rho)": slopes(points), **named("eps", "rho/(1 - rho)", points)}


def fit_smoothness(report: Reporter) -> BySeed:
    """Return Table 1.2's exponents: of L for GD and SGD, of the mini-batch B for mb-SGD, at T = 1024."""
    steps, values = 1024, (1, 2, 4, 8, 16)
    fits = _Fits(report, len(SEEDS) * steps * 3 * len(values))

    def eps(seed: int, noise: float, smoothness: int, batch: int) -> float:
        return fits.eps(
            "sgd", steps=steps, seed=seed, workers=batch, noise=noise, lowest=smoothness / 10, highest=smoothness
        )

    exact = measured(values, lambda seed, value: eps(seed, 0.0, value, 1))
    noisy = measured(values, lambda seed, value: eps(seed, 3.0, value, 1))
    by_batch = measured(values, lambda seed, value: eps(seed, 3.0, 1, value))
    return {
        "GD, exponent of L": slopes(exact),
        "SGD, exponent of L": {seed: 2 * slope for seed, slope in slopes(noisy).items()},
        "mb-SGD, exponent of B": {seed: 2 * slope for seed, slope in slopes(by_batch).items()},
        **named("GD", "L", exact), **named("SGD", "L", noisy), **named("mb-SGD", "B", by_batch),
    }  # fmt: skip


def speed_up(report: Reporter) -> BySeed:
    """Return how eps falls with the number of workers at T = 1024: mb-SGD, DSGD on rings, CSGD."""
    offer_fixed_grid()
    steps, many, rings = 1024, (1, 2, 4, 8, 16, 32, 64), (4, 8, 16, 32)
    fits = _Fits(report, len(SEEDS) * steps * (len(many) + len(rings) + 2))

    def points(method: str, counts: Sequence[int], **choices: Any) -> Points:  # noqa: ANN401
        return measured(
            counts, lambda seed, n: fits.eps(method, steps=steps, seed=seed, workers=n, noise=3, **choices)
        )  # fmt: skip

    sgd, dsgd = points("sgd", many), points("dsgd", rings)
    csgd = points("csgd", (1, 64), **_grid(1 / _SIGMA_OF_GRID))  # sigma' = 1
    return {
        "mb-SGD, slope": slopes(sgd),
        "DSGD, slope": slopes(dsgd),
        "mb-SGD, eps of 1 over eps of 64": {seed: sgd[1][seed] / sgd[64][seed] for seed in SEEDS},
        "CSGD, eps of 1 over eps of 64": {seed: csgd[1][seed] / csgd[64][seed] for seed in SEEDS},
        "CSGD over mb-SGD, eps of 64": {seed: csgd[64][seed] / sgd[64][seed] for seed in SEEDS},
        **named("mb-SGD", "N", sgd), **named("DSGD", "N", dsgd), **named("CSGD", "N", csgd),
    }  # fmt: skip


def measured(values: Sequence[int], eps: Callable[[int, int], float]) -> Points:
    """Return eps of each seed for each value."""
    return {value: {seed: eps(seed, value) for seed in SEEDS} for value in values}


def exponents(points: Points) -> dict[int, float]:
    """Return, by seed, the slope of the logarithm of what is varied over log(1/eps)."""
    return {
        seed: slope_of({1 / by_seed[seed]: value for value, by_seed in points.items()})
        for seed in next(iter(points.values()))
    }


def slopes(points: Points) -> dict[int, float]:
    """Return, by seed, the slope of log eps over the logarithm of what is varied."""
    return {
        seed: slope_of({value: by_seed[seed] for value, by_seed in points.items()})
        for seed in next(iter(points.values()))
    }


def named(row: str, varied: str, points: Points) -> BySeed:
    """Return the points of a fit by names, such as "eps, T = 256"."""
    return {f"{row}, {varied} = {value:g}": by_seed for value, by_seed in points.items()}
