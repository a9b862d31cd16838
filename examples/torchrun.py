"""Bare torchrun: train, stop at any time, go on from the newest complete checkpoint with the same bits.

TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --standalone --nproc-per-node 2 --max-restarts 3 \\
  examples/torchrun.py --steps 200 --folder runs/torchrun
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import laconic

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--folder", type=Path, default=Path("runs/torchrun"))
asked = parser.parse_args()

dist.init_process_group("gloo")
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
opt = laconic.DistributedOptimizer(opt, laconic.ECSGD(), model=model)
loaded = laconic.checkpoint.load(asked.folder, opt)

for step in range(loaded.step if loaded else 0, asked.steps):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))
    mine = order[dist.get_rank() : 64 : dist.get_world_size()]
    opt.zero_grad()
    loss = cross_entropy(model(images[mine]), labels[mine])
    loss.backward()
    opt.step()
    if (step + 1) % 5 == 0:
        laconic.checkpoint.save(asked.folder, opt, step=step + 1)

traffic = opt.total_traffic()  # on every rank
if dist.get_rank() == 0:
    print(f"loss {loss:.4f}, sent {traffic.up.wire_bytes:,} bytes")
    torch.save(model.state_dict(), asked.folder / "model.pt")
opt.close()
dist.destroy_process_group()
