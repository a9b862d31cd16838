"""Two networks against each other, with an optimizer each: the judge takes two backward passes to a step, and
gradients that the painter's pass leaves in it are thrown away.

torchrun --standalone --nproc-per-node 2 tests/ddp/public/gan.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.parallel import DistributedDataParallel

NOISE, WIDTH, BATCH = 8, 8, 16


def small_weights(module):
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.05)


def new_painter():
    return nn.Sequential(
        nn.ConvTranspose2d(NOISE, 2 * WIDTH, 4, bias=False), nn.BatchNorm2d(2 * WIDTH), nn.ReLU(),
        nn.ConvTranspose2d(2 * WIDTH, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def new_judge():
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
        nn.Conv2d(WIDTH, 2 * WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * WIDTH), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * WIDTH, 1, 4, bias=False), nn.Flatten(0),
    )  # fmt: skip


def train(steps):
    torch.manual_seed(0)
    painter = DistributedDataParallel(new_painter().apply(small_weights))
    judge = DistributedDataParallel(new_judge().apply(small_weights))
    judge_opt = torch.optim.Adam(judge.parameters(), lr=2e-3, betas=(0.5, 0.999))
    painter_opt = torch.optim.Adam(painter.parameters(), lr=2e-4, betas=(0.5, 0.999))
    random, losses = torch.Generator().manual_seed(dist.get_rank()), []
    for _ in range(steps):
        real = (torch.rand(BATCH, 1, 1, 1, generator=random) - 0.5).expand(-1, -1, 8, 8)
        judge.zero_grad()
        loss_real = bce(judge(real), torch.ones(BATCH))
        loss_real.backward()
        fake = painter(torch.randn(BATCH, NOISE, 1, 1, generator=random))
        loss_fake = bce(judge(fake.detach()), torch.zeros(BATCH))
        loss_fake.backward()
        judge_opt.step()
        painter.zero_grad()
        loss_painter = bce(judge(fake), torch.ones(BATCH))
        loss_painter.backward()
        painter_opt.step()
        losses.append((loss_real + loss_fake).item())
    return losses, [painter, judge]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    print(train(50)[0])
    dist.destroy_process_group()
