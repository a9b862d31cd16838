"""Two ranks that train and save, and are killed at a chosen call of any function, of ours, of Python or of torch."""

import os
import signal
import sys
from hashlib import blake2b
from multiprocessing.connection import wait
from pathlib import Path

import torch

import laconic
from support import optimizers
from support.deadlines import DEADLINE_S
from support.ranks import Launch, RankEnding
from support.saved_folders import RESUMED, Job

STEPS, EVERY = 6, 2
N = 2


class Attempt(Launch):
    """A run of which the rest is killed as soon as one rank has died, as torchrun does."""

    def ends(self):
        found = [RankEnding()] * N
        waiting = {pipe: rank for rank, pipe in enumerate(self._pipes)}
        while waiting:
            for pipe in wait([*waiting], DEADLINE_S):
                rank = waiting.pop(pipe)
                try:
                    found[rank] = pipe.recv()
                except EOFError:
                    for process in self._processes:
                        process.kill()
        for pipe in self._pipes:
            pipe.close()  # before any rank is waited for: they end together
        for process in self._processes:
            process.join(DEADLINE_S)
        return found


def hash_of(opt, net):
    """A hash of everything that a step changes."""
    hashed = blake2b(str(opt.driver.rounds).encode(), digest_size=8)

    def add(value):
        if isinstance(value, torch.Tensor):
            hashed.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, dict):
            for key, each in value.items():
                hashed.update(str(key).encode())
                add(each)
        elif isinstance(value, list):
            for each in value:
                add(each)
        else:
            hashed.update(repr(value).encode())

    add({"model": net.state_dict(), "random": torch.get_rng_state(), **optimizers.state_of(opt)})
    return hashed.hexdigest()


def killed_at(n_calls, log):
    """Kill this process at its n-th call of a function, which the log names. Returns what counts them."""
    counted = [0]

    def count(frame, event, argument):
        if event in ("call", "c_call"):
            counted[0] += 1
            if counted[0] == n_calls:
                with open(log, "a") as stream:
                    stream.write(f"{innermost_of_ours(frame)}\n")
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    return counted


def innermost_of_ours(frame):
    """The package of laconic in which a frame is, or is called."""
    ours = str(Path(laconic.__file__).parent)
    while frame is not None:
        if frame.f_code.co_filename.startswith(ours):
            return Path(frame.f_code.co_filename).relative_to(ours).parts[0]
        frame = frame.f_back
    return "elsewhere"


def train(rank, folder, name, kills, expected):
    """Train from the newest checkpoint to the end. The hash after each step, and the number of calls.

    With `expected`, the hashes of an undisturbed run, whatever differs from it is an error.
    """
    job = Job(name, seed=rank + 1, **RESUMED[name])
    counted = killed_at(kills.get(rank, 0), f"{folder}.log")
    loaded = laconic.checkpoint.load(folder, job.opt, objects={"scheduler": job.scheduler})
    begin = 0 if loaded is None else loaded.step
    hashes = {}

    def look(step):
        hashes[step] = hash_of(job.opt, job.net)
        is_it = not expected or hashes[step] == expected[rank][step]
        assert is_it, f"rank {rank}, which goes on from step {begin}, differs after step {step}"

    look(begin)
    if rank == 0:
        with open(f"{folder}.begins", "a") as stream:
            stream.write(f"{begin}\n")
    for step in range(begin, STEPS):
        job.train(rank, [step])
        look(step + 1)
        if (step + 1) % EVERY == 0:
            laconic.checkpoint.save(folder, job.opt, step=step + 1, objects={"scheduler": job.scheduler}, keep=2)
    sys.setprofile(None)
    return hashes, counted[0], begin
