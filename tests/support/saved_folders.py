"""What ranks do in the tests of `laconic.checkpoint`: save into folders, load from them, train on."""

import resource
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import laconic
from support import methods, optimizers, small_model
from support.checkpoint_tasks import residuals, sum_over_ranks

SAVED = 3  # steps before a save
RESUMED = {
    "ec-sgd": {}, "compskip": {"layout": "sharded"}, "dsgd": {}, "sgd": {"adam": True},
    "ssgd-mv": {"adam": True, "local_steps": 2}, "diloco": {}, "powersgd": {}, "sgd-server": {"layout": "rank0"},
}  # fmt: skip


class Job:
    """A net with a dropout, a method around its optimizer, and a schedule."""

    def __init__(self, name, group=None, layout="auto", adam=False, seed=11, **options):
        torch.manual_seed(seed)
        self.net = nn.Sequential(*small_model.net(), nn.Dropout(0.2))
        algorithm = methods.with_test_settings(name)
        inner = (torch.optim.Adam if adam else torch.optim.SGD)(self.net.parameters(), lr=algorithm.test_lr)
        self.scheduler = torch.optim.lr_scheduler.StepLR(inner, 2, gamma=0.9)
        self.opt = optimizers.wrapped(self.net, name, layout, inner, group=group, **options)

    def train(self, rank, steps):
        for step in steps:
            optimizers.one_step(self.opt, self.net, rank, step)
            self.scheduler.step()

    def save(self, folder, step, **options):
        objects = {"scheduler": self.scheduler}
        return laconic.checkpoint.save(folder, self.opt, step=step, objects=objects, **options)

    def load(self, folder):
        return laconic.checkpoint.load(folder, self.opt, objects={"scheduler": self.scheduler})

    def values(self):
        return small_model.values(self.net)

    def state(self):
        return self.values(), optimizers.state_of(self.opt), self.opt.traffic.rounds, self.scheduler.state_dict()


def resumed(rank, folder, name, group):
    """Parameters after a straight run, and after one that another job goes on with; where that begins."""
    straight = Job(name, group, **RESUMED[name])
    straight.train(rank, range(2 * SAVED))
    job = Job(name, group, **RESUMED[name])
    job.train(rank, range(SAVED))
    path = job.save(folder, SAVED, extra={"rank": rank, "losses": torch.ones(2)})
    job = Job(name, group, seed=rank, **RESUMED[name])
    loaded = job.load(folder)
    job.train(rank, range(loaded.step, 2 * SAVED))
    is_it = (loaded.step, loaded.path, loaded.n_ranks, loaded.extra["rank"]) == (SAVED, path, 2, rank)
    return straight.values(), job.values(), is_it


def on_other_numbers(rank, folder, groups):
    """Four save; two and seven load. The sums of residuals before and after, and the parameters two steps later."""
    found = {}
    if rank < 4:
        job = Job("ec-sgd", groups[4])
        job.train(rank, range(SAVED))
        job.save(folder, SAVED)
        found["saved"] = sum_over_ranks(residuals(job.opt).double(), groups[4])
    dist.barrier()
    for n in (2, 7):
        if rank < n:
            job = Job("ec-sgd", groups[n])
            job.load(folder)
            residual = sum_over_ranks(residuals(job.opt).double(), groups[n])
            before = job.values()
            job.train(rank, range(SAVED, SAVED + 2))
            found[n] = residual, before, job.values()
    return found


def on_a_full_disk(rank, folder, group):
    """What each rank is told where rank 1 can write no large file; what is there afterwards, and what is loaded."""
    job = Job("ec-sgd", group)
    job.train(rank, range(SAVED))
    job.save(folder, SAVED)
    job.train(rank, range(SAVED, SAVED + 1))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        job.save(folder, SAVED + 1)
        error = "nothing"
    except OSError as failed:
        error = str(failed)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    dist.barrier(group)  # rank 0 has removed what was begun
    names = sorted(path.name for path in Path(folder).iterdir())
    dist.barrier(group)
    again = job.save(folder, SAVED + 1, keep=1).name
    return error, names, again, sorted(path.name for path in Path(folder).iterdir())


def refused(rank, folder, group):
    """Why ranks refuse a checkpoint that one of them cannot go on from; whether anything has changed."""
    job = Job("ec-sgd", group)
    job.train(rank, range(1))
    job.save(folder, 1)
    found = {}
    job = Job("compskip", group)
    job.train(rank, range(2))
    before = job.state()
    try:
        job.load(folder)
    except laconic.CheckpointError as error:
        found["method"] = str(error)
    torch.testing.assert_close(job.state(), before, rtol=0, atol=0)
    job = Job("ec-sgd", group)
    job.train(rank, range(2))
    before = job.state()
    objects = {} if rank else {"scheduler": job.scheduler}
    try:
        laconic.checkpoint.load(folder, job.opt, objects=objects)
    except laconic.CheckpointError as error:
        found["objects"] = str(error)
    torch.testing.assert_close(job.state(), before, rtol=0, atol=0)
    return found


def act(rank, folder):
    groups = {n: dist.new_group(list(range(n))) for n in (2, 4, 7)}
    found = {"other numbers": on_other_numbers(rank, f"{folder}/numbers", groups)}
    if rank < 2:
        pair = groups[2]
        found |= {
            "resumed": {name: resumed(rank, f"{folder}/{name}", name, pair) for name in RESUMED},
            "full": on_a_full_disk(rank, f"{folder}/full", pair), "refused": refused(rank, f"{folder}/refused", pair),
        }  # fmt: skip
    return found
