"""Ten kinds of small images: two convolutions with dropout, Adadelta, a learning rate that falls by epoch, a test.

torchrun --standalone --nproc-per-node 2 tests/ddp/public/images.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import log_softmax, max_pool2d, nll_loss, relu
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.1), nn.Dropout(0.2)
        self.fc1, self.fc2 = nn.Linear(16 * 4 * 4, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = max_pool2d(relu(self.conv2(relu(self.conv1(x)))), 2)
        x = relu(self.fc1(self.dropout1(x).flatten(1)))
        return log_softmax(self.fc2(self.dropout2(x)), dim=1)


def images_of(n_each):
    random = torch.Generator().manual_seed(1)
    kinds, labels = torch.randn(10, 1, 12, 12, generator=random), torch.arange(10).repeat(n_each)
    return TensorDataset(kinds[labels] + 0.7 * torch.randn(10 * n_each, 1, 12, 12, generator=random), labels)


def train(steps):
    torch.manual_seed(0)
    images = images_of(16 * steps // 10)  # two epochs of mini-batches of 16 on two ranks
    sampler = DistributedSampler(images)
    loader = DataLoader(images, batch_size=16, sampler=sampler)
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    torch.manual_seed(dist.get_rank())  # of dropout
    losses = []
    for epoch in range(2):
        model.train()
        sampler.set_epoch(epoch)
        for data, target in loader:
            optimizer.zero_grad()
            loss = nll_loss(model(data), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
        model.eval()
        with torch.no_grad():
            sum((model(data).argmax(1) == target).sum() for data, target in loader)
    return losses, [model]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    print(train(50)[0])
    dist.destroy_process_group()
