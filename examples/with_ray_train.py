"""Ray Train: attach to what `prepare_model` returns; a worker that dies is replaced, and all go on together.

python examples/with_ray_train.py --steps 200 --folder runs/ray
"""

import argparse
import os
import tempfile
from pathlib import Path

import ray
import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, prepare_model
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import laconic


def train_loop(config: dict) -> None:
    torch.manual_seed(0)
    digits, targets = load_digits(return_X_y=True)
    images, labels = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(targets)
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    model = prepare_model(net)
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    handle = laconic.ddp.attach(model, laconic.ECSGD())
    begin, rank, died = 0, train.get_context().get_world_rank(), Path(config["folder"]) / "died"
    if checkpoint := train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder) / "state.pt")
        begin = saved["step"]
        net.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        handle.load_state_dict(saved["laconic"])
    for step in range(begin, config["steps"]):
        if step == config["dies_at"] and rank == 1 and not died.exists():
            died.touch()
            os._exit(1)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))
        mine = order[rank : 64 : train.get_context().get_world_size()]
        opt.zero_grad()
        loss = cross_entropy(model(images[mine]), labels[mine])
        loss.backward()
        opt.step()
        if (step + 1) % 5 == 0:
            gathered = handle.gather_state()  # on every rank; rank 0 reports
            state = {"model": net.state_dict(), "opt": opt.state_dict(), "step": step + 1, "laconic": gathered}
            with tempfile.TemporaryDirectory() as folder:
                torch.save(state, Path(folder) / "state.pt")
                own = train.Checkpoint.from_directory(folder) if rank == 0 else None
                train.report({"loss": loss.item(), "step": step + 1}, checkpoint=own)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("runs/ray"))
    parser.add_argument("--dies-at", type=int, default=-1, help="the step at which worker 1 dies")
    asked = parser.parse_args()
    asked.folder = str(asked.folder.resolve())
    ray.init(num_cpus=4, include_dashboard=False)  # the workers, and what watches them
    run = train.RunConfig("laconic", asked.folder, failure_config=train.FailureConfig(max_failures=2))
    workers, gloo = train.ScalingConfig(num_workers=2), TorchConfig(backend="gloo")
    loop = {"train_loop_config": vars(asked), "torch_config": gloo, "scaling_config": workers, "run_config": run}
    print(TorchTrainer(train_loop, **loop).fit().metrics)
