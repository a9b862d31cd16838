"""Every method, one rank killed at 20 seeded moments: every survivor names the right rank in bounded time, or goes on.

With `LACONIC_RESULTS=FILE` the table is written, as in docs/results/killed-ranks.md. `LACONIC_MOMENTS=3` tries fewer,
`LACONIC_MOMENTS=3:6` the moments 3, 4 and 5, and `LACONIC_METHODS=lag,dsgd` these methods alone.
"""

import json
import os
import random
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import laconic
from support.deadlines import DEATH_TIMEOUT_S
from support.methods import layouts_of, with_test_settings
from support.moments import Moments
from support.ranks import announce, ends_of_ranks, wait_for
from support.slopes import Slopes, table

N, JOBS, MOMENTS, ROUNDS = 3, 8, 20, 40  # rounds enough to die in, also where some make few calls
NAMES = sorted(laconic.ALGORITHMS)


def chosen() -> list[tuple[str, int]]:
    """The methods and moments to try."""
    low, _, high = os.environ.get("LACONIC_MOMENTS", str(MOMENTS)).rpartition(":")
    names = os.environ.get("LACONIC_METHODS", ",".join(NAMES)).split(",")
    return [(name, moment) for moment in range(int(low or 0), int(high)) for name in names]


def job_of(name: str, moment: int) -> tuple[str, int, float]:
    """The layout, the rank that dies and when: as a share of three rounds."""
    draw = random.Random(f"{name} {moment}")
    layouts = layouts_of(with_test_settings(name), N)
    return layouts[moment % len(layouts)], draw.randrange(N), draw.random()


def train_and_die(rank: int, jobs: list[tuple[str, int]], folder: Path) -> None:
    """Several jobs side by side, of N ranks each. What became of a rank is written to a file."""
    groups = [dist.new_group([N * job + each for each in range(N)]) for job in range(len(jobs))]
    own, place = divmod(rank, N)
    if own >= len(jobs):
        os._exit(0)
    name, moment = jobs[own]
    layout, doomed, share = job_of(name, moment)
    model = Slopes()

    def step(opt: laconic.DistributedOptimizer, number: int) -> None:
        def closure() -> torch.Tensor:
            opt.zero_grad()
            loss = model.loss(table(place, number))
            loss.backward()
            return loss

        opt.step(None if opt.serves_only else closure)

    moments = Moments()
    number, begun, ended = 0, time.monotonic(), "went on"
    try:
        opt = laconic.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.1), with_test_settings(name), model=model, layout=layout,
            group=groups[own], timeout_s=DEATH_TIMEOUT_S,
        )  # fmt: skip
        for number in range(2):
            step(opt, number)
        if place == doomed:
            n_calls = moments.count(lambda: step(opt, 2))
            moments.die_after(1 + int(3 * share * n_calls))
        else:
            step(opt, 2)
        for number in range(3, ROUNDS):
            begun = time.monotonic()
            step(opt, number)
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"
    what = {"ended": ended, "round": number, "seconds": time.monotonic() - begun}
    (folder / f"{own} {place}").write_text(json.dumps(what))
    announce(f"{own} {place} ended")
    wait_for(*(f"{own} {each} ended" for each in range(N) if each != doomed))  # nobody takes this one for the dead one
    os._exit(0)


def cell_of(name: str, moment: int, survivors: dict[int, dict]) -> str:
    """What became of a job, by the endings of its survivors."""
    _, doomed, _ = job_of(name, moment)
    expected = f"PeerLostError: rank {doomed} "
    may_go_on = with_test_settings(name).is_asynchronous
    ends = [each["ended"] for each in survivors.values()]
    if may_go_on and all(end == "went on" for end in ends):
        return "goes on"
    wrong = [end for end in ends if not (end.startswith(expected) or (may_go_on and end == "went on"))]
    return "named" if not wrong else f"WRONG: {wrong[0]:.200}"


@pytest.mark.nightly
def test_every_survivor_names_the_rank_that_was_killed(tmp_path):
    pending = chosen()
    cells: dict[tuple[str, int], str] = {}
    slowest = 0.0
    while pending:
        jobs, pending = pending[:JOBS], pending[JOBS:]
        folder = tmp_path / str(len(pending))
        folder.mkdir()
        ends_of_ranks(train_and_die, N * len(jobs), jobs, folder)
        for place, (name, moment) in enumerate(jobs):
            doomed = job_of(name, moment)[1]
            files = {rank: folder / f"{place} {rank}" for rank in range(N) if rank != doomed}
            missing = [rank for rank, file in files.items() if not file.exists()]
            if missing:
                cells[name, moment] = f"WRONG: ranks {missing} ended without a word"
                continue
            survivors = {rank: json.loads(file.read_text()) for rank, file in files.items()}
            cells[name, moment] = cell_of(name, moment, survivors)
            slowest = max(slowest, *(each["seconds"] for each in survivors.values()))
        write_table(cells, slowest)
    wrong = {f"{name}, moment {moment}": cell for (name, moment), cell in cells.items() if cell.startswith("WRONG")}
    assert not wrong, "\n".join(f"{key}: {cell}" for key, cell in wrong.items())


def write_table(cells: dict[tuple[str, int], str], slowest: float) -> None:
    """Write how often each ending was seen, by method."""
    if "LACONIC_RESULTS" not in os.environ:
        return
    rows = ["| method | named | goes on | wrong |", "|---|---|---|---|"]
    for name in NAMES:
        own = [cell for (method, _), cell in cells.items() if method == name]
        counts = [own.count("named"), own.count("goes on"), sum(cell.startswith("WRONG") for cell in own)]
        rows.append(f"| `{name}` | " + " | ".join(map(str, counts)) + " |")
    wrong = [f"- {name}, moment {moment}: {cell}" for (name, moment), cell in cells.items() if cell.startswith("WRONG")]
    text = "\n".join([*rows, "", f"{len(cells)} deaths, slowest {slowest:.1f} s.", *wrong])
    Path(os.environ["LACONIC_RESULTS"]).write_text(text + "\n")
