"""A small transformer over characters, by a method or by DistributedDataParallel alone: loss, tokens a second.

torchrun --standalone --nproc-per-node 2 examples/char_gpt.py --method signsgd-mv --lr 0.001 --steps 200
torchrun --standalone --nproc-per-node 2 examples/char_gpt.py --method none --steps 200
"""

import argparse
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import laconic

parser = argparse.ArgumentParser()
parser.add_argument("--method", default="ec-sgd", help="a name that `laconic list` prints, or none")
parser.add_argument("--text", type=Path, default=Path(__file__).parents[1] / "README.md")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--lr", type=float, default=0.5)
asked = parser.parse_args()
CONTEXT, BATCH, WIDTH = 64, 8, 64


class CharGPT(nn.Module):
    def __init__(self, n_characters: int, width: int = WIDTH) -> None:
        super().__init__()
        self.character, self.place = nn.Embedding(n_characters, width), nn.Embedding(CONTEXT, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, n_characters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        x = self.character(characters) + self.place.weight
        return self.out(self.blocks(x, mask=self.mask, is_causal=True))


dist.init_process_group("gloo")
torch.manual_seed(0)
text = asked.text.read_text(encoding="utf-8")
letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
numbers = torch.tensor([letters[letter] for letter in text])
model = DistributedDataParallel(CharGPT(len(letters)))
opt = torch.optim.SGD(model.parameters(), lr=asked.lr)
if asked.method != "none":
    handle = laconic.ddp.attach(model, laconic.ALGORITHMS[asked.method]())
random, losses, begun = torch.Generator().manual_seed(dist.get_rank()), [], time.perf_counter()
for _ in range(asked.steps):
    begin = torch.randint(len(numbers) - CONTEXT, (BATCH, 1), generator=random) + torch.arange(CONTEXT)
    opt.zero_grad()
    loss = cross_entropy(model(numbers[begin]).flatten(0, 1), numbers[begin + 1].flatten())
    loss.backward()
    opt.step()
    losses.append(loss.item())
if dist.get_rank() == 0:
    tokens = asked.steps * BATCH * CONTEXT * dist.get_world_size() / (time.perf_counter() - begun)
    print(f"loss {sum(losses[:10]) / 10:.3f} -> {sum(losses[-10:]) / 10:.3f}, {tokens:,.0f} tokens a second")
