"""Lightning: attach when training begins, once the strategy has wrapped the model; checkpoints are the Trainer's own.

python examples/with_lightning.py --steps 200 --folder runs/lightning
"""

import argparse
from pathlib import Path

import lightning
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import laconic


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        images, labels = load_digits(return_X_y=True)
        self.images, self.labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
        self.handle, self.saved = None, None

    def train_dataloader(self):
        return torch.utils.data.DataLoader(range(10**6), batch_size=1)  # the numbers of steps

    def training_step(self, batch, _):
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.global_step))
        mine = order[self.global_rank : 64 : self.trainer.world_size]
        return cross_entropy(self.net(self.images[mine]), self.labels[mine])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def on_train_start(self):
        self.handle = laconic.ddp.attach(self.trainer.model, laconic.ECSGD())
        if self.saved is not None:
            self.handle.load_state_dict(self.saved)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["laconic"] = self.handle.gather_state()  # on every rank; rank 0 writes

    def on_load_checkpoint(self, checkpoint):
        self.saved = checkpoint["laconic"]  # comes before the model is wrapped


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("runs/lightning"))
    asked = parser.parse_args()
    lightning.seed_everything(0)
    module, last = Digits(), asked.folder / "last.ckpt"
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=asked.steps, **quiet)
    trainer.fit(module, ckpt_path=last if last.exists() else None)
    trainer.save_checkpoint(last)
    if trainer.is_global_zero:
        torch.save(module.net.state_dict(), asked.folder / "model.pt")
