"""Fitted exponents of Table 1.1, Table 1.2 and the linear speed-up, on quadratics.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020. A run of T iterations has the learning rate of
its theorem for that T and L = 1, and ends with eps; the fit is the slope of log T over log(1/eps).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from laconic.algorithms.asgd import ASGD
from laconic.algorithms.csgd import CSGD
from laconic.algorithms.dsgd import DSGD
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sgd import SGD
from laconic.compressors import COMPRESSORS, ScaledSign
from laconic.contract import Algorithm
from laconic.gossip.mixing import Mixing
from laconic.lab.processes.pool import Reporter
from laconic.reproduce.quadratic import D, FixedGrid, Quadratic, mean_squared_gradient, slope_of

BySeed = dict[str, dict[int, float]]
_SEEDS = (0, 1, 2)
_STEPS = (256, 1024, 4096)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A row of Table 1.1."""

    problem: Quadratic
    algorithm: Algorithm
    lr: Callable[[int], float]
    """The learning rate of the theorem for T iterations."""


def _rho(workers: int) -> float:
    return Mixing.from_text("ring", workers).rho


def _noisy_lr(sigma: float, workers: int) -> Callable[[int], float]:
    return lambda steps: 1 / (1 + sigma * (steps / workers) ** 0.5)


def _dsgd_lr(disagreement: float, workers: int) -> Callable[[int], float]:
    rho = _rho(workers)
    return lambda steps: 1 / (1 + steps ** (1 / 3) * (disagreement * rho / (1 - rho)) ** (2 / 3))


def _grid(width: float) -> FixedGrid:
    """Return the compressor, which methods then take: it is none that a user can name."""
    COMPRESSORS.setdefault(FixedGrid.name, FixedGrid)
    return FixedGrid(width=width)


def _row(name: str) -> _Fit:
    one, eight = Quadratic(workers=1, seed=0), Quadratic(workers=8, seed=0)
    match name:
        case "gd":
            return _Fit(problem=one, algorithm=SGD(), lr=lambda steps: 1.0)
        case "sgd":
            return _Fit(problem=replace(one, sigma=2.0), algorithm=SGD(), lr=_noisy_lr(2.0, 1))
        case "mb-sgd":
            return _Fit(problem=replace(eight, sigma=3.0), algorithm=SGD(), lr=_noisy_lr(3.0, 8))
        case "csgd":
            return _Fit(
                problem=eight, algorithm=CSGD(compressor=_grid(1.0), server_compressor=_grid(1.0)),
                lr=lambda steps: 1 / (1 + D**0.5 / 2 * (steps * (1 + 1 / 8)) ** 0.5),
            )  # fmt: skip
        case "ec-sgd":
            sign = ScaledSign()
            return _Fit(
                problem=replace(eight, disagreement=10.0),
                algorithm=ECSGD(compressor=sign, server_compressor=sign),
                lr=lambda steps: 1 / (2 + steps ** (1 / 3) * 10 ** (2 / 3)),
            )
        case _:
            assert name == "dsgd"
            different = replace(eight, difference=0.5, disagreement=3.0)
            return _Fit(problem=different, algorithm=DSGD(graph="ring"), lr=_dsgd_lr(3.0, 8))


def fit(name: str) -> Callable[[Reporter], BySeed]:
    """Return a function that fits the exponent of a row of Table 1.1."""

    def fitted(report: Reporter) -> BySeed:
        row = _row(name)

        def eps(seed: int, steps: int, progress: Callable[[], None]) -> float:
            problem = replace(row.problem, seed=seed)
            return mean_squared_gradient(
                problem, row.algorithm, lr=row.lr(steps), steps=steps, progress=progress
            )  # fmt: skip

        return {"exponent": _exponents(report, eps, _STEPS)}

    return fitted


def fit_asgd(report: Reporter) -> BySeed:
    """Return ASGD's exponents in updates: with and without noise; and of eps over tau + 1 at T = 4096 updates."""
    by_delay = (2, 4, 8, 16)  # workers: tau + 1
    total = len(_SEEDS) * (2 * sum(_STEPS) + len(by_delay) * _STEPS[-1])
    progress = _Progress(report, total)

    def eps(workers: int, sigma: float, seed: int, updates: int) -> float:
        problem = Quadratic(workers=workers, seed=seed, sigma=sigma)
        lr = 1 / (2 * workers + sigma * updates**0.5)
        return mean_squared_gradient(
            problem, ASGD(), lr=lr, steps=updates // workers, progress=lambda: progress(workers)
        )  # fmt: skip

    def exponent(workers: int, sigma: float) -> dict[int, float]:
        return {
            seed: -1 / slope_of({updates: eps(workers, sigma, seed, updates) for updates in _STEPS}) for seed in _SEEDS
        }

    return {
        "exponent": exponent(8, 0.0),
        "exponent with noise": exponent(4, 3.0),
        "exponent of tau + 1": {
            seed: slope_of({workers: eps(workers, 0.0, seed, _STEPS[-1]) for workers in by_delay}) for seed in _SEEDS
        },
    }


def fit_rings(report: Reporter) -> BySeed:
    """Return the exponent of eps over rho/(1 - rho) of DSGD, on rings of 4 to 16 at T = 4096."""
    rings, steps = (4, 5, 8, 10, 16), _STEPS[-1]
    progress = _Progress(report, len(_SEEDS) * steps * len(rings))

    def eps(workers: int, seed: int) -> float:
        problem = Quadratic(workers=workers, seed=seed, difference=0.5, disagreement=3.0)
        lr = _dsgd_lr(3.0, workers)(steps)
        return mean_squared_gradient(problem, DSGD(graph="ring"), lr=lr, steps=steps, progress=progress)

    return {
        "exponent of rho/(1 - rho)": {
            seed: slope_of({_rho(n) / (1 - _rho(n)): eps(n, seed) for n in rings}) for seed in _SEEDS
        }
    }


def fit_smoothness(report: Reporter) -> BySeed:
    """Return Table 1.2's exponents: of L for GD and SGD, of the mini-batch B for mb-SGD, at T = 1024."""
    steps, values = 1024, (1, 2, 4, 8, 16)
    progress = _Progress(report, len(_SEEDS) * steps * 3 * len(values))

    def eps(seed: int, sigma: float, smoothness: int, batch: int) -> float:
        problem = Quadratic(workers=batch, seed=seed, sigma=sigma, smoothness=smoothness)
        lr = 1 / (smoothness + sigma * (steps * smoothness / batch) ** 0.5)
        return mean_squared_gradient(problem, SGD(), lr=lr, steps=steps, progress=progress)

    def exponents(factor: float, of: Callable[[int, int], float]) -> dict[int, float]:
        return {seed: factor * slope_of({value: of(seed, value) for value in values}) for seed in _SEEDS}

    return {
        "GD, exponent of L": exponents(1, lambda seed, value: eps(seed, 0.0, value, 1)),
        "SGD, exponent of L": exponents(2, lambda seed, value: eps(seed, 3.0, value, 1)),
        "mb-SGD, exponent of B": exponents(2, lambda seed, value: eps(seed, 3.0, 1, value)),
    }


def speed_up(report: Reporter) -> BySeed:
    """Return how eps falls with the number of workers at T = 1024: mb-SGD, DSGD on rings, CSGD."""
    steps, many, rings = 1024, (1, 2, 4, 8, 16, 32, 64), (4, 8, 16, 32)
    grid = _grid(2 / D**0.5)  # sigma' = 1
    progress = _Progress(report, len(_SEEDS) * steps * (len(many) + len(rings) + 2))

    def eps(seed: int, workers: int, algorithm: Algorithm, variance: float) -> float:
        problem = Quadratic(workers=workers, seed=seed, sigma=3.0)
        lr = 1 / (1 + (steps * variance) ** 0.5)
        return mean_squared_gradient(problem, algorithm, lr=lr, steps=steps, progress=progress)

    sgd = {seed: {n: eps(seed, n, SGD(), 9 / n) for n in many} for seed in _SEEDS}
    dsgd = {seed: {n: eps(seed, n, DSGD(graph="ring"), 9 / n) for n in rings} for seed in _SEEDS}
    compressed = CSGD(compressor=grid, server_compressor=grid)
    csgd = {seed: {n: eps(seed, n, compressed, 9 / n + 1 + 1 / n) for n in (1, 64)} for seed in _SEEDS}
    return {
        "mb-SGD, slope": {seed: slope_of(points) for seed, points in sgd.items()},
        "DSGD, slope": {seed: slope_of(points) for seed, points in dsgd.items()},
        "mb-SGD, eps of 1 over eps of 64": {seed: points[1] / points[64] for seed, points in sgd.items()},
        "CSGD, eps of 1 over eps of 64": {seed: points[1] / points[64] for seed, points in csgd.items()},
        "CSGD over mb-SGD, eps of 64": {seed: csgd[seed][64] / sgd[seed][64] for seed in _SEEDS},
    }


class _Progress:
    """Counts steps, and reports them."""

    def __init__(self, report: Reporter, total: int) -> None:
        self._report, self._total, self._done = report, total, 0
        report(0, total, "")

    def __call__(self, steps: int = 1) -> None:
        self._done = min(self._total, self._done + steps)
        self._report(self._done, self._total, "")


def _exponents(
    report: Reporter, eps: Callable[[int, int, Callable[[], None]], float], steps: Sequence[int]
) -> dict[int, float]:
    """Return, by seed, the slope of log T over log(1/eps)."""
    progress = _Progress(report, len(_SEEDS) * sum(steps))
    by_seed: Mapping[int, dict[float, float]] = {
        seed: {1 / eps(seed, t, progress): t for t in steps} for seed in _SEEDS
    }
    return {seed: slope_of(points) for seed, points in by_seed.items()}
