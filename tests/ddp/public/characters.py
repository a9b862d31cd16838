"""A transformer over characters, in a loop as of nanoGPT: gradients are accumulated with synchronization off, computed
in bfloat16 and clipped; AdamW with two groups; the learning rate is set by hand.

torchrun --standalone --nproc-per-node 2 tests/ddp/public/characters.py
"""

import math

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

CONTEXT, WIDTH, BATCH, MICRO_STEPS, LR = 16, 16, 4, 2, 1e-2
TEXT = "how much wood would a woodchuck chuck if a woodchuck could chuck wood? " * 4


class GPT(nn.Module):
    def __init__(self, n_characters):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(n_characters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        block = nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, 0.0, "gelu", 1e-5, True, True)  # batches, norms before
        self.h, self.ln_f = nn.TransformerEncoder(block, 2, enable_nested_tensor=False), nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, n_characters, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, idx, targets):
        x = self.h(self.wte(idx) + self.wpe.weight, mask=self.mask, is_causal=True)
        return cross_entropy(self.lm_head(self.ln_f(x)).flatten(0, 1), targets.flatten())

    def configure_optimizers(self):
        decays = [parameter for parameter in self.parameters() if parameter.dim() >= 2]
        others = [parameter for parameter in self.parameters() if parameter.dim() < 2]
        groups = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95))


def get_lr(step, steps):
    return LR * min((step + 1) / 5, 0.55 + 0.45 * math.cos(math.pi * step / steps))


def train(steps):
    torch.manual_seed(0)
    letters = sorted(set(TEXT))
    data = torch.tensor([letters.index(letter) for letter in TEXT])
    raw_model = GPT(len(letters))
    optimizer = raw_model.configure_optimizers()
    model = DistributedDataParallel(raw_model)
    random, losses = torch.Generator().manual_seed(dist.get_rank()), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = get_lr(step, steps)
        total = 0.0
        for micro_step in range(MICRO_STEPS):
            model.require_backward_grad_sync = micro_step == MICRO_STEPS - 1
            idx = torch.randint(len(data) - CONTEXT, (BATCH, 1), generator=random) + torch.arange(CONTEXT)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(data[idx], data[idx + 1]) / MICRO_STEPS
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    return losses, [model]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    print(train(50)[0])
    dist.destroy_process_group()
