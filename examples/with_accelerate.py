"""Hugging Face Accelerate: attach to what `prepare` returns; `save_state` holds the residuals of all ranks.

torchrun --standalone --nproc-per-node 2 examples/with_accelerate.py --steps 200 --folder runs/accelerate
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import laconic

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--folder", type=Path, default=Path("runs/accelerate"))
asked = parser.parse_args()

accelerator = Accelerator(cpu=not torch.cuda.is_available())
set_seed(0)
images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
model, opt = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
handle = laconic.ddp.attach(model, laconic.ECSGD())
accelerator.register_for_checkpointing(handle)

begin = 0
if (asked.folder / "step").exists():
    accelerator.load_state(asked.folder)
    begin = int((asked.folder / "step").read_text())
for step in range(begin, asked.steps):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))
    mine = order[accelerator.process_index : 64 : accelerator.num_processes]
    opt.zero_grad()
    loss = cross_entropy(model(images[mine].to(accelerator.device)), labels[mine].to(accelerator.device))
    accelerator.backward(loss)
    opt.step()

handle.gather_state()  # Accelerate writes what is registered on rank 0 alone
accelerator.save_state(asked.folder)
if accelerator.is_main_process:
    (asked.folder / "step").write_text(str(asked.steps))
    print(f"loss {loss:.4f}, sent {handle.traffic.up.wire_bytes:,} bytes")
    torch.save(accelerator.unwrap_model(model).state_dict(), asked.folder / "model.pt")
accelerator.end_training()
