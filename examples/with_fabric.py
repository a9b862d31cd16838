"""Lightning Fabric: attach to what `setup` returns; the state of all ranks goes into Fabric's own checkpoint.

python examples/with_fabric.py --steps 200 --folder runs/fabric
"""

import argparse
from pathlib import Path

import torch
from lightning.fabric import Fabric
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import laconic

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--folder", type=Path, default=Path("runs/fabric"))
parser.add_argument("--ranks", type=int, default=2)
asked = parser.parse_args()


def train(fabric: Fabric) -> None:
    fabric.seed_everything(0)
    digits, targets = load_digits(return_X_y=True)
    images, labels = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(targets)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    model, opt = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    handle = laconic.ddp.attach(model, laconic.ECSGD())
    file, begin = asked.folder / "state.ckpt", 0
    if file.exists():
        begin = fabric.load(file, {"model": model, "opt": opt})["step"]
        handle.load_state_dict(torch.load(file)["laconic"])
    for step in range(begin, asked.steps):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))
        mine = order[fabric.global_rank : 64 : fabric.world_size]
        opt.zero_grad()
        loss = cross_entropy(model(images[mine]), labels[mine])
        fabric.backward(loss)
        opt.step()
    handle.gather_state()  # Fabric writes the values of rank 0
    fabric.save(file, {"model": model, "opt": opt, "step": asked.steps, "laconic": handle.state_dict()})
    if fabric.global_rank == 0:
        print(f"loss {loss:.4f}, sent {handle.traffic.up.wire_bytes:,} bytes")
        torch.save(model.module.state_dict(), asked.folder / "model.pt")


if __name__ == "__main__":
    fabric = Fabric(accelerator="cpu", devices=asked.ranks, strategy="ddp")
    fabric.launch()
    train(fabric)
