"""The Trainer of transformers, on a small language model.

torchrun --standalone --nproc-per-node 2 tests/ddp/public/by_transformers.py
"""

import tempfile

import torch
import transformers

CONTEXT = 16
TEXT = "she sells sea shells by the sea shore, and the shells she sells are sea shells for sure. " * 40


def train(steps):
    transformers.set_seed(0)
    letters = sorted(set(TEXT))
    data = torch.tensor([letters.index(letter) for letter in TEXT])
    rows = [{"input_ids": row, "labels": row} for row in data.split(CONTEXT) if len(row) == CONTEXT]
    config = transformers.GPT2Config(
        vocab_size=len(letters), n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2, use_cache=False
    )
    model = transformers.GPT2LMHeadModel(config)
    arguments = transformers.TrainingArguments(
        tempfile.mkdtemp(), max_steps=steps, learning_rate=1e-2, use_cpu=True, per_device_train_batch_size=4,
        logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log], [model]


if __name__ == "__main__":
    print(train(50)[0])
