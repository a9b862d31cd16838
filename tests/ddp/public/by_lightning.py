"""Lightning, on a small classifier.

torchrun --standalone --nproc-per-node 2 tests/ddp/public/by_lightning.py
"""

import lightning
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
        self.losses = []

    def training_step(self, batch, _):
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(steps):
    lightning.seed_everything(0)
    labels = torch.arange(32 * steps) % 4
    data = TensorDataset(torch.randn(4, 20)[labels] + torch.randn(len(labels), 20), labels)
    module = Classifier()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=steps, **quiet)
    trainer.fit(module, DataLoader(data, batch_size=16, shuffle=True))
    return module.losses, [module]


if __name__ == "__main__":
    print(train(50)[0])
