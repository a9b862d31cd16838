"""Every method in every layout, one bad value in one gradient of one rank: in the simulator and over processes.

With `LACONIC_RESULTS=FILE` the table is written, as docs/results/bad-values.md has it.
"""

import os
from functools import partial
from pathlib import Path

import pytest
import torch

import laconic
from support.deadlines import PATIENCE_S
from support.methods import layouts_of, with_test_settings
from support.ranks import run_ranks
from support.slopes import Slopes, changed, not_finite, simulated, slope_with, state_of

N, BAD_STEP, STEPS = 3, 3, 7
BAD = {"NaN": torch.nan, "inf": torch.inf, "3e38": 3e38}
CASES = [
    (name, layout, value)
    for name in sorted(laconic.ALGORITHMS)
    for layout in layouts_of(with_test_settings(name), N)
    for value in BAD
]


def slope_of(value: str, rank: int, step: int) -> torch.Tensor:
    return slope_with(rank, step, BAD[value], {(1, BAD_STEP): 7})


def outcome(before: dict, after: dict, aborted: bool, on_its_own: bool) -> str:
    """What a round did. A gradient that is dropped by an asynchronous server leaves others' updates."""
    if not_finite(after):
        return f"KEEPS INF: {', '.join(not_finite(after))}"
    if not aborted:
        return "goes on"
    return "dropped" if on_its_own else "aborted" if not changed(before, after) else "ABORTED, AND CHANGED"


def over_processes(rank: int, cases: list[tuple[str, str, str]]) -> list[str]:
    """By case, what a rank saw of the bad round; and whether all others went on."""
    cells = []
    for name, layout, value in cases:
        model, algorithm = Slopes(), with_test_settings(name)
        opt = laconic.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.1), algorithm, model=model, layout=layout, seed=3,
            timeout_s=PATIENCE_S,
        )  # fmt: skip

        def closure(step: int, model: Slopes, opt: laconic.DistributedOptimizer, value: str) -> torch.Tensor:
            opt.zero_grad()
            loss = model.loss(slope_of(value, rank, step))
            loss.backward()
            return loss

        cell = ""
        for step in range(STEPS):
            before, done = state_of(opt), opt.traffic.aborted_rounds
            opt.step(None if opt.serves_only else partial(closure, step, model, opt, value))
            aborted = opt.traffic.aborted_rounds > done
            if step == BAD_STEP:
                cell = outcome(before, state_of(opt), aborted, algorithm.is_asynchronous)
            elif aborted or not_finite(state_of(opt)):
                cell = f"STEP {step} TOO"
        cells.append(cell)
    return cells


def in_simulator(name: str, layout: str, value: str) -> str:
    model, simulation = simulated(name, lr=0.1, workers=N - (layout == "dedicated"), layout=layout)
    cell = ""
    for step in range(STEPS):
        before, done = state_of(simulation), simulation.traffic.aborted_rounds
        simulation.step(lambda rank, step=step: model.loss(slope_of(value, rank, step)))
        aborted = simulation.traffic.aborted_rounds > done
        if step == BAD_STEP:
            cell = outcome(before, state_of(simulation), aborted, simulation.algorithm.is_asynchronous)
        elif aborted or not_finite(state_of(simulation)):
            return f"STEP {step} TOO"
    return cell


@pytest.mark.nightly
def test_one_bad_value_aborts_one_round_or_none():
    simulated_cells = {case: in_simulator(*case) for case in CASES}
    by_rank = run_ranks(over_processes, N, CASES)
    cells = {}
    for place, case in enumerate(CASES):
        seen = sorted({cells_of_rank[place] for cells_of_rank in by_rank})
        if case[1] == "dedicated" and with_test_settings(case[0]).is_asynchronous:
            seen = sorted({*seen} - {"goes on"}) or seen  # those of the ranks whose gradients were fine
        cells[case] = seen[0] if seen == [simulated_cells[case]] else f"{simulated_cells[case]} / {' / '.join(seen)}"
    write_table(cells)
    wrong = {case: cell for case, cell in cells.items() if cell not in ("goes on", "aborted", "dropped")}
    assert not wrong
    assert {cell for case, cell in cells.items() if case[2] != "3e38"} == {"aborted", "dropped"}


def write_table(cells: dict[tuple[str, str, str], str]) -> None:
    """Write what happened, by method and layout."""
    if "LACONIC_RESULTS" not in os.environ:
        return
    rows = ["| method | layout | NaN | inf | 3e38 |", "|---|---|---|---|---|"]
    for name, layout in dict.fromkeys((name, layout) for name, layout, _ in cells):
        rows.append(f"| `{name}` | {layout} | " + " | ".join(cells[name, layout, value] for value in BAD) + " |")
    Path(os.environ["LACONIC_RESULTS"]).write_text("\n".join(rows) + "\n")
