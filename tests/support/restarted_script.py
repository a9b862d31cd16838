"""Started by torchrun: trains, saves every second step, and is killed in the steps that it is given; see the test."""

import os
import signal
import sys

import torch
import torch.distributed as dist

import laconic
from support.kill_points import STEPS, hash_of
from support.saved_folders import Job


def main(folder: str, killed_in: dict[int, tuple[int, int]]) -> None:
    """Train. `killed_in`: by the number of restarts, the rank that is killed and the step in which it is."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, restarts = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    job = Job("ec-sgd", seed=rank + 1)
    loaded = job.load(folder)
    begin = loaded.step if loaded else 0
    for step in range(begin, STEPS):
        if killed_in.get(restarts) == (rank, step):
            os.kill(os.getpid(), signal.SIGKILL)
        job.train(rank, [step])
        if step % 2:
            job.save(folder, step + 1)
    with open(f"{folder}/end of {rank}", "w") as stream:
        stream.write(f"{restarts} {begin} {hash_of(job.opt, job.net)}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    assert laconic.__version__
    main(sys.argv[1], {0: (1, 3), 1: (0, 5)})
