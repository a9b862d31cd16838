"""A small residual network on images: momentum, warm learning rates that fall by epoch, checkpoints that rank 0 writes.

torchrun --standalone --nproc-per-node 2 tests/ddp/public/residual_net.py
"""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

STEPS_AN_EPOCH, BATCH = 10, 16


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return relu(x + self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


def images():
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(2 * STEPS_AN_EPOCH * BATCH) % 4
    kinds = torch.randn(4, 3, 8, 8, generator=random)
    return TensorDataset(kinds[labels] + torch.randn(len(labels), 3, 8, 8, generator=random), labels)


def train(steps, folder=None):
    torch.manual_seed(0)
    file = Path(folder or tempfile.mkdtemp()) / "checkpoint.pt"
    stem, head = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    model = DistributedDataParallel(nn.Sequential(stem, Block(8), Block(8), head))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    begin, losses = 0, []
    if file.exists():
        checkpoint = torch.load(file)
        begin = checkpoint["epoch"]
        model.load_state_dict(checkpoint["state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
    dataset = images()
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler)
    for epoch in range(begin, steps // STEPS_AN_EPOCH):
        sampler.set_epoch(epoch)
        for data, target in loader:
            loss = cross_entropy(model(data), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
        if dist.get_rank() == 0:
            state = {
                "epoch": epoch + 1,
                "state_dict": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            }
            torch.save(state, file)
    return losses, [model]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    print(train(50)[0])
    dist.destroy_process_group()
