"""Train on the digits of scikit-learn, in every process that torchrun starts."""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split
from torch.utils.data.distributed import DistributedSampler

import laconic

dist.init_process_group("gloo")
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
train, test = random_split(digits, [1400, 397])
model = torch.nn.Sequential(
    torch.nn.Linear(64, 128), torch.nn.BatchNorm1d(128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
)
sampler = DistributedSampler(train)
loader = DataLoader(train, batch_size=56 // dist.get_world_size(), sampler=sampler)
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
opt = laconic.DistributedOptimizer(opt, laconic.ECSGD(), model=model, clip_norm=1.0)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=5)

for epoch in range(5):
    sampler.set_epoch(epoch)
    for inputs, targets in loader:
        opt.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        opt.step()
    schedule.step()

opt.share_buffers()  # batch-norm statistics: every rank
model.eval()
with torch.no_grad():
    n_right = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in DataLoader(test, 100))
state = {"model": model.state_dict(), "opt": opt.gather_state(rank=0)}  # the residuals of all ranks: every rank
if dist.get_rank() == 0:
    print(f"accuracy {n_right / len(test):.3f}")
    torch.save(state, "digits.pt")
opt.close()
dist.destroy_process_group()
