"""The learning rates that the theorems of Liu and Zhang choose, for objectives with known constants.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020, arXiv 2104.05245: theorems 1.1.1, 1.2.1, 3.4.2,
4.2.2 and 5.2.6 and (3.5), with f(x_1) - f* = 1. The last terms of 3.4.2 and 5.2.6 print L = 1; here L stands where the
proofs have it. Differs: 3.4.2 prints sigma for sigma' in its last term, 5.2.6 sqrt(T N) for sqrt(T / N), and (4.10)
lacks the factor 2 that its own condition (4.8) needs.
"""

from math import cbrt, sqrt

import laconic
from laconic.contract import Algorithm
from laconic.errors import Named, OptionError
from laconic.lab.tasks.task import Bounds

AVERAGING = ("sgd", "sgd-model", "sgd-server")
"""Methods whose direction is the mean gradient."""
KNOWN = (*AVERAGING, "csgd", "ec-sgd", "asgd", "dsgd")


def theorem_learning_rate(algorithm: Algorithm, bounds: Bounds, *, rounds: int, workers: int) -> float:
    """Return the learning rate of the method's theorem.

    Args:
        algorithm: The method.
        bounds: L, sigma and so on.
        rounds: T, the number of rounds of the run. Of an asynchronous method T is N times this, its updates.
        workers: N.

    Raises:
        OptionError: No theorem is known for the method, or it needs a constant that is not known.
    """
    name, smoothness = algorithm.name, bounds.smoothness
    if name not in KNOWN:
        raise OptionError(
            Named("lr", "theory"), f": no theorem of Liu and Zhang gives a rate for {name}; give a number, or take one "
            f"of {', '.join(KNOWN)}",
        )  # fmt: skip
    noise_term = bounds.noise * sqrt(rounds * smoothness / workers)
    if name in AVERAGING:
        return 1 / (smoothness + noise_term)  # 1.1.1, 1.2.1; 2.1
    if name == "asgd":
        staleness = getattr(algorithm, "max_staleness", None)
        staleness = workers - 1 if staleness is None else staleness
        updates = rounds * workers
        factor = 2 if staleness else 1  # one worker is SGD
        return 1 / (factor * smoothness * (staleness + 1) + bounds.noise * sqrt(updates * smoothness))  # (4.10)
    cube_root = cbrt(rounds * smoothness**2)
    if name == "dsgd":
        rho = laconic.Mixing.over_cycle(getattr(algorithm, "graph", "ring"), workers).rho if workers > 1 else 0.0
        drift = bounds.disagreement * rho / (1 - rho)
        return 1 / (smoothness + noise_term + cube_root * cbrt(drift**2))  # 5.2.6
    if not bounds.compression_error:
        raise OptionError(
            Named("lr", "theory"), f": the theorem of {name} needs sigma', the bound on what its compressor leaves; "
            "give ", Named("task_set"), " compression_error=...",
        )  # fmt: skip
    if name == "ec-sgd":
        return 1 / (2 * smoothness + noise_term + cube_root * cbrt(bounds.compression_error**2))  # 3.4.2
    variance = bounds.noise**2 / workers + (1 + 1 / workers) * bounds.compression_error**2  # sigma_c^2 of (3.5)
    return 1 / (smoothness + sqrt(rounds * smoothness * variance))
