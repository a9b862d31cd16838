"""Whatever is killed, and when: a run goes on from the newest complete checkpoint with the bits of an undisturbed one.

`LACONIC_RESULTS=table.md pytest tests/checkpoint/test_kill_points.py -m nightly` writes the table of
docs/results/kill-points.md.
"""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from laconic.lab.processes.ranks import loopback_interface
from support import restarted_script
from support.deadlines import DEADLINE_S
from support.kill_points import STEPS, Attempt, N, train
from support.ranks import Launch
from support.saved_folders import RESUMED

pytestmark = pytest.mark.slow
MANNERS = ["rank 0", "rank 1", "both"]  # as soon as one has died the other is ended, as torchrun does
ALONE = "rank 1, and nobody ends rank 0"  # which finds out by itself


class Chain:
    """Runs of one method, killed again and again."""

    def __init__(self, name, folder, draws, manners):
        self.name, self.folder, self.draws, self.manners = name, folder, draws, manners
        undisturbed = Attempt(train, N, str(folder / "undisturbed"), name, {}, None).results()
        self.expected = [hashes for hashes, _, _ in undisturbed]
        self.n_calls = [calls for _, calls, _ in undisturbed]
        self.n_runs, self.kills = 0, Counter()

    def go_on(self):
        """One more run: killed, or finished with what is expected after every step."""
        how = self.draws.choice(self.manners)
        victims = range(N) if how == "both" else [int(how[5])]
        kills = {rank: self.draws.randrange(1, self.n_calls[rank]) for rank in victims}
        launch = Launch if how == ALONE else Attempt
        endings = launch(train, N, str(self.folder / str(self.n_runs)), self.name, kills, self.expected).ends()
        assert not any("differs" in ending.error for ending in endings), (self.name, kills, endings)
        for rank, ending in enumerate(endings):
            assert not ending.error or "PeerLostError" in ending.error, (self.name, kills, rank, ending.error)
        if all(ending.result for ending in endings):
            self.n_runs += 1  # the next one begins anew
        else:
            self.kills[how] += 1

    def end(self):
        """Let the last run end undisturbed."""
        assert all(Attempt(train, N, str(self.folder / str(self.n_runs)), self.name, {}, self.expected).results())

    def counts(self, of):
        """How often ranks were killed in each package ("log"), or runs that were to be killed began at a step."""
        return Counter(line for log in self.folder.glob(f"[0-9]*.{of}") for line in log.read_text().split())


def killed(names, n_kills, folder, seed, manners):
    chains = []
    for name in names:
        (folder / name).mkdir()
        chain = Chain(name, folder / name, random.Random(f"{seed} {name}"), manners)
        while chain.kills.total() < n_kills:
            chain.go_on()
        chain.end()
        chains.append(chain)
    return chains


def test_after_each_of_20_kills_a_run_goes_on_with_the_bits_of_an_undisturbed_one(tmp_path):
    chains = killed(["ec-sgd", "ssgd-mv"], 10, tmp_path, 7, MANNERS)
    assert sum((chain.counts("begins") for chain in chains), Counter()).keys() - {"0"}  # something was gone on from


@pytest.mark.nightly
def test_after_each_of_200_kills_a_run_goes_on_with_the_bits_of_an_undisturbed_one(tmp_path):
    chains = killed(RESUMED, 25, tmp_path, 19, [*MANNERS, ALONE])
    assert sum(chain.kills.total() for chain in chains) == 200
    if "LACONIC_RESULTS" in os.environ:
        Path(os.environ["LACONIC_RESULTS"]).write_text(table(chains))


def table(chains):
    titles = (
        "method",
        "rank 0",
        "rank 1",
        "both",
        "rank 1 alone",
        "in `laconic.checkpoint`",
        "runs that began at step 0",
        "2",
        "4",
    )
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for chain in chains:
        counts = [chain.kills[how] for how in ("rank 0", "rank 1", "both", ALONE)]
        counts += [chain.counts("log")["checkpoint"], *(chain.counts("begins")[step] for step in "0246")]
        cells = [f"`{chain.name}`", *map(str, counts)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


@pytest.mark.nightly
def test_a_group_that_torchrun_restarts_goes_on_from_the_newest_checkpoint_bit_for_bit(tmp_path):
    tests = Path(restarted_script.__file__).parents[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    command = [*launcher, restarted_script.__file__, str(tmp_path / "run")]
    paths = os.pathsep.join([str(tests), *sys.path])
    environment = os.environ | {
        "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": loopback_interface(), "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else restarted ranks may find the addresses of dead ones
    }  # fmt: skip
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr
    undisturbed = Attempt(train, N, str(tmp_path / "undisturbed"), "ec-sgd", {}, None).results()
    for rank, (hashes, _, _) in enumerate(undisturbed):
        restarts, begin, found = (tmp_path / "run" / f"end of {rank}").read_text().split()
        assert (restarts, begin) == ("2", "4"), ended.stderr
        assert found == hashes[STEPS]
