"""What each method's starting values reach beside a small grid: the table of docs/results/starting-values.md.

    python benchmarks/starting_values.py --out FOLDER [laconic's options of data, model and epochs]

Every method is trained with the learning rate that `laconic run` starts with, and with a third of it and three
times it, one seed each, in parallel. A grid that was stopped goes on where it was.
"""

import argparse
import sys
from pathlib import Path

from laconic.contract import ALGORITHMS
from laconic.lab.comparison.engine import run_comparison
from laconic.lab.comparison.plan import Comparison
from laconic.lab.runs.settings import RunSettings

FACTORS = {"1/3": 1 / 3, "1": 1.0, "3": 3.0}
BAND = 1.5  # points


def main() -> None:
    """Train the grid and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data")
    parser.add_argument("--examples", type=int)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--methods", nargs="*", default=sorted(ALGORITHMS))
    given = parser.parse_args()
    named = ("dataset", "data", "examples", "epochs")
    options = {name: getattr(given, name) for name in named if getattr(given, name) is not None}
    started = {name: RunSettings(algorithm=name, **options) for name in given.methods}
    variants = {
        f"{name}-{factor.replace('/', '.')}": {"algorithm": name, "lr": started[name].learning_rate * times}
        for name in given.methods for factor, times in FACTORS.items()
    }  # fmt: skip
    run = run_comparison(Comparison(variants=variants, options=options, seeds=(0,)), given.out)
    accuracies = {
        cell.label: 100 * record.last.test_accuracy for cell, record in run.records.items() if not record.why_diverged
    }
    sys.stdout.write("| method | starts with | reaches | best of the grid | at | behind |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for name in given.methods:
        own = {factor: accuracies.get(f"{name}-{factor.replace('/', '.')}", 0.0) for factor in FACTORS}
        best = max(own, key=own.__getitem__)
        behind = own[best] - own["1"]
        mark = "" if behind <= BAND else " *"
        rate = started[name].learning_rate
        row = (f"`{name}`", f"{rate:g}", f"{own['1']:.2f}", f"{own[best]:.2f}", f"x {best}", f"{behind:.2f}{mark}")
        sys.stdout.write(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
