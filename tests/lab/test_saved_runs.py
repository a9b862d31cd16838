"""A run that saves itself, is stopped and goes on ends with the figures and bits of one without a break."""

from dataclasses import asdict, replace

import pytest
import torch

from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.run import run_as_rank, run_simulated
from laconic.lab.runs.saved import Saving, read
from laconic.lab.runs.settings import RunSettings
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

# 1437 digits: 5 steps an epoch
SMALL = RunSettings(algorithm="sgd", model="linear", workers=2, batch_size=140, epochs=4)
NETWORK = {"bandwidth": "1Mbit", "latency": "5ms", "compute": "20ms"}


class StopError(Exception):
    pass


def ignore(progress):
    pass


def stopped_after(step):
    """A listener that stops the run at a step, as a signal would: not at the end of an epoch."""

    def listen(progress):
        if progress.step == step:
            raise StopError

    return listen


def saved_state(settings, file):
    """The saved run in a file: its rows, the model's bits and the unbroken state."""
    return read(file.read_bytes(), Saving(file=file), Experiment(settings))


def assert_same_state(one, other):
    def leaves(value, place=""):
        if isinstance(value, dict):
            for key, each in value.items():
                yield from leaves(each, f"{place}/{key}")
        elif isinstance(value, list | tuple):
            for key, each in enumerate(value):
                yield from leaves(each, f"{place}/{key}")
        else:
            if not place.endswith("control_bytes"):  # a restart sends some more
                yield place, value

    for name in ("model", "optimizer"):
        pairs = [dict(leaves(getattr(run, name))) for run in (one, other)]
        assert pairs[0].keys() == pairs[1].keys()
        for place, value in pairs[0].items():
            same = torch.equal(value, pairs[1][place]) if isinstance(value, torch.Tensor) else (
                repr(value) == repr(pairs[1][place]))  # fmt: skip
            assert same, place


FAULTS = "seed = 3\nlost = 0.1\ncorrupted = 0.05\ncrashed = 0.1\ncrash_rounds = 4\n"

RUNS = {
    "sgd": {},
    "votes, dense epochs, a warm-up and steps": {
        "algorithm": "ssgd-mv", "set": {"density": "0.05"}, "dense_epochs": 1.4, "warm_up_epochs": 1.5,
        "lr_schedule": "step", "decay_at": "0.3,0.8", **NETWORK,
    },
    "local steps that an epoch interrupts": {"algorithm": "ssgd-mv", "local_steps": 3, "lr_schedule": "cosine"},
    "error feedback, and fixed shards": {"algorithm": "ec-sgd", "partition": "fixed", "weight_decay": 1e-3},
    "two gradients": {"algorithm": "sasg"},
    "arrivals": {"algorithm": "asgd", "workers": 3, "batch_size": 95, **NETWORK},
    "skips": {"algorithm": "compskip", "set": {"skip": "random", "skip.probability": "0.5"}, **NETWORK},
    "models that differ, with local steps": {"algorithm": "dsgd", "local_steps": 2},
    "packets and workers that are lost": {"algorithm": "ec-sgd", "faults": FAULTS, "workers": 3, "batch_size": 95},
    "the server's steps": {"algorithm": "sgd-server", "layout": "dedicated"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", RUNS)
def test_a_stopped_run_goes_on_with_the_same_rows_bytes_and_bits(what, tmp_path):
    (tmp_path / "plan.toml").write_text(FAULTS)
    options = {name: str(tmp_path / "plan.toml") if name == "faults" else value for name, value in RUNS[what].items()}
    settings = replace(SMALL, **options)
    straight, stopped = (Saving(file=tmp_path / name, every=1) for name in ("straight.pt", "stopped.pt"))
    unbroken = run_simulated(settings, ignore, straight)
    with pytest.raises(StopError):
        run_simulated(settings, stopped_after(13), stopped)
    assert saved_state(settings, stopped.file).epochs == 2
    reports = []
    record = run_simulated(settings, reports.append, replace(stopped, every=None, resume=True))
    assert reports[0].earlier == tuple(unbroken.rows[:2])
    assert (reports[0].step, reports[1].step) == (10, 11)
    assert list(map(asdict, record.rows)) == list(map(asdict, unbroken.rows))
    assert record.traffic == unbroken.traffic
    assert record.summary()["traffic"] == unbroken.summary()["traffic"]
    assert_same_state(*(saved_state(settings, saving.file) for saving in (straight, stopped)))


# On three ranks: one of them is a dedicated server, or all are workers.
PROCESSES = {
    "ssgd-mv": {
        "set": {"density": "0.05"}, "dense_epochs": 1.4, "local_steps": 3, "lr_schedule": "cosine", "workers": 3,
        "batch_size": 95,
    },
    "ec-sgd": {"layout": "dedicated"},
    "dsgd": {"local_steps": 2, "workers": 3, "batch_size": 95},
    "sasg": {"layout": "sharded", "workers": 3, "batch_size": 95},
    "sgd-server": {"layout": "dedicated"},
}  # fmt: skip


def on_three_ranks(name):
    return replace(SMALL, algorithm=name, epochs=3, driver="processes", timeout_s=PATIENCE_S, **PROCESSES[name])


def train_as_rank(rank, folder):
    """Each run without a break, then with one, in the same process group."""
    found = {}
    for name in PROCESSES:
        plan = on_three_ranks(name)
        straight, stopped = (Saving(file=folder / f"{name} {which}.pt", every=1) for which in ("straight", "stopped"))
        records = [run_as_rank(plan, ignore, straight)]
        with pytest.raises(StopError):
            run_as_rank(plan, stopped_after(13), stopped)  # on all ranks
        records.append(run_as_rank(plan, ignore, replace(stopped, every=None, resume=True)))
        found[name] = [(record.rows, record.traffic) for record in records]
    return found


@pytest.mark.slow
def test_ranks_go_on_with_the_same_rows_bytes_and_bits(tmp_path):
    by_rank = run_ranks(train_as_rank, 3, tmp_path)
    for name in PROCESSES:
        (unbroken, traffic), (rows, other_traffic) = by_rank[0][name]
        assert list(map(figures, rows)) == list(map(figures, unbroken)), name
        assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)
        assert (traffic.up, traffic.down, traffic.setup) == (other_traffic.up, other_traffic.down, other_traffic.setup)
        files = (tmp_path / f"{name} {which}.pt" for which in ("straight", "stopped"))
        assert_same_state(*(saved_state(on_three_ranks(name), file) for file in files))


def figures(row):
    return {name: value for name, value in asdict(row).items() if name != "seconds"}
