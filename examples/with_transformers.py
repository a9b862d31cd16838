"""The Trainer of transformers: a callback attaches when training begins, and saves beside each checkpoint.

torchrun --standalone --nproc-per-node 2 examples/with_transformers.py --steps 200 --folder runs/transformers
"""

import argparse
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

import laconic

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


class Laconic(TrainerCallback):
    """Exchanges gradients by a method. Its state is `laconic.pt` in the Trainer's checkpoints."""

    def on_train_begin(self, args, state, control, **_):
        self.handle = laconic.ddp.attach(trainer.model_wrapped, laconic.ECSGD())
        if state.global_step:
            self.handle.load_state_dict(torch.load(self.folder(args, state) / "laconic.pt"))

    def on_save(self, args, state, control, **_):
        gathered = self.handle.gather_state()  # on every rank
        if state.is_world_process_zero:
            torch.save(gathered, self.folder(args, state) / "laconic.pt")

    @staticmethod
    def folder(args, state):
        return Path(args.output_dir) / f"checkpoint-{state.global_step}"


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--folder", type=Path, default=Path("runs/transformers"))
asked = parser.parse_args()

set_seed(0)
size, characters = 32, sorted(set(TEXT))
numbers = torch.tensor([characters.index(one) for one in TEXT])
pieces = [{"input_ids": piece, "labels": piece} for piece in numbers.split(size) if len(piece) == size]
model = GPT2LMHeadModel(GPT2Config(vocab_size=len(characters), n_positions=size, n_embd=32, n_layer=2, n_head=2))
often = {"report_to": "none", "logging_steps": 10, "save_steps": asked.steps, "per_device_train_batch_size": 4}
own = TrainingArguments(
    asked.folder, max_steps=asked.steps, learning_rate=1e-3, lr_scheduler_type="constant", use_cpu=True, **often
)
trainer = Trainer(model, own, train_dataset=pieces, callbacks=[Laconic()])
trainer.train(resume_from_checkpoint=any(asked.folder.glob("checkpoint-*")))
if trainer.is_world_process_zero():
    torch.save(model.state_dict(), asked.folder / "model.pt")
