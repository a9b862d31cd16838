"""Train on the digits of scikit-learn, in every process that torchrun starts, with DistributedDataParallel."""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset, random_split
from torch.utils.data.distributed import DistributedSampler

dist.init_process_group("gloo")
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
train, test = random_split(digits, [1400, 397])
model = torch.nn.Sequential(
    torch.nn.Linear(64, 128), torch.nn.BatchNorm1d(128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
)
ddp = DistributedDataParallel(model)
sampler = DistributedSampler(train)
loader = DataLoader(train, batch_size=56 // dist.get_world_size(), sampler=sampler)
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=5)

for epoch in range(5):
    sampler.set_epoch(epoch)
    for inputs, targets in loader:
        opt.zero_grad()
        cross_entropy(ddp(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
    schedule.step()

model.eval()
with torch.no_grad():
    n_right = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in DataLoader(test, 100))
if dist.get_rank() == 0:
    print(f"accuracy {n_right / len(test):.3f}")
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, "digits.pt")
dist.destroy_process_group()
