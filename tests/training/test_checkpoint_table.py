"""Every public method: rank 0 of three saves alone, and 1, 2, 3 and 5 ranks load. The table is recorded.

`LACONIC_RECORD=1 pytest tests/training/test_checkpoint_table.py -m nightly` writes docs/results/checkpoints.md.
"""

import datetime
import logging
import os
import platform
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import laconic
from laconic.training.state_dict import from_bytes, to_bytes
from support import optimizers, small_model
from support.ranks import run_ranks

pytestmark = pytest.mark.nightly

SAVING = 3
LOADING = (1, 2, 3, 5)
PAGE = Path(__file__).parents[2] / "docs" / "results" / "checkpoints.md"
GOES_ON, REFUSED, NAMED = "goes on", "refused, nothing changed", "named"


class Noted(logging.Handler):
    """Keeps what this rank was told."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def train(opt, net, rank, rounds):
    for round_ in rounds:
        optimizers.one_step(opt, net, rank, round_)


def saving(rank):
    """By method, the model's and the optimizer's state that rank 0 alone has saved; of the others, nothing."""
    found = {}
    for name in sorted(laconic.ALGORITHMS):
        net = small_model.net()
        opt = optimizers.wrapped(net, name, "auto")
        train(opt, net, rank, range(4))
        found[name] = (net.state_dict(), opt.state_dict()) if rank == 0 else None
        dist.barrier()
    return to_bytes(found)


def loading(rank, n, data):
    """By method, what became of a load on n ranks."""
    noted, states = Noted(), from_bytes(data)
    logging.getLogger("laconic").addHandler(noted)
    return {name: outcome(name, rank, n, states[name], noted) for name in sorted(laconic.ALGORITHMS)}


def outcome(name, rank, n, states, noted):
    """It goes on, goes on and names what is missing, or is refused."""
    net = small_model.net()
    try:
        opt = optimizers.wrapped(net, name, "auto")
    except ValueError:
        return "-"  # the method needs more ranks
    net.load_state_dict(states[0])
    before = optimizers.state_of(opt)
    noted.messages.clear()
    try:
        opt.load_state_dict(states[1])
    except ValueError as error:
        torch.testing.assert_close(before, optimizers.state_of(opt), rtol=0, atol=0)
        return f"{REFUSED}: {error}"
    messages = list(noted.messages)
    train(opt, net, rank, range(4, 6))
    assert opt.traffic.rounds == 6
    if opt.algorithm.replicas_equal:
        values = [torch.zeros(small_model.N_PARAMETERS) for _ in range(n)]
        dist.all_gather(values, small_model.values(net))
        assert all(torch.equal(other, values[0]) for other in values[: opt.driver.job.layout.n_workers])
    dist.barrier()
    return f"{NAMED}: {messages[0]}" if messages else GOES_ON


def test_every_method_goes_on_or_names_what_is_missing_or_refuses_and_changes_nothing():
    data = run_ranks(saving, SAVING)[0]
    by_number = {n: run_ranks(loading, n, n, data) for n in LOADING}
    cells = {}
    for name in sorted(laconic.ALGORITHMS):
        for n in LOADING:
            of_ranks = [results[name] for results in by_number[n]]
            kinds = {each.partition(":")[0] for each in of_ranks[1:]} - {GOES_ON}
            assert not kinds or kinds == {of_ranks[0].partition(":")[0]}, (name, n, of_ranks)
            cells[name, n] = of_ranks[0]
    assert {cell.partition(":")[0] for cell in cells.values()} <= {GOES_ON, REFUSED, NAMED, "-"}
    assert cells["sgd", 5] == GOES_ON
    assert cells["ec-sgd", 3].startswith(NAMED)
    if os.environ.get("LACONIC_RECORD"):
        PAGE.write_text(page(cells))


def page(cells):
    rows = [f"| `{name}` | " + " | ".join(cells[name, n].partition(":")[0] for n in LOADING) + " |"
            for name in sorted(laconic.ALGORITHMS)]  # fmt: skip
    sentences = [f"- `{name}`, {n}: {cells[name, n].partition(': ')[2]}"
                 for name in sorted(laconic.ALGORITHMS) for n in LOADING if ":" in cells[name, n]]  # fmt: skip
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores"
    head = f"""# Rank 0 saves, any number of ranks load

Rank 0 of {SAVING} saved `opt.state_dict()` after 4 rounds, alone; 1, 2, 3 and 5 ranks loaded it and trained 2 more,
in the layout that each method prefers. "named": training goes on, and a statement says what was not in the state. "-":
the method needs more ranks. After all loads replicas are equal where the method keeps them so.

Command: `LACONIC_RECORD=1 pytest tests/training/test_checkpoint_table.py -m nightly`,
{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {versions}.

| method | {" | ".join(f"{n} rank{'s' * (n > 1)}" for n in LOADING)} |
{"|---" * (1 + len(LOADING))}|"""
    return "\n".join([head, *rows, "", "What was stated:", "", *sentences, ""])
