"""A language model over words: an LSTM with tied weights that goes on with its state, clipping, and no optimizer.

torchrun --standalone --nproc-per-node 2 tests/ddp/public/words.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

N_WORDS, WIDTH, BATCH, BPTT = 40, 24, 8, 10


class WordModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.rnn = nn.Embedding(N_WORDS, WIDTH), nn.LSTM(WIDTH, WIDTH, num_layers=2)
        self.decoder = nn.Linear(WIDTH, N_WORDS)
        self.decoder.weight = self.encoder.weight  # tied
        nn.init.uniform_(self.encoder.weight, -0.3, 0.3)

    def forward(self, words, hidden):
        output, hidden = self.rnn(self.encoder(words), hidden)
        return self.decoder(output).flatten(0, 1), hidden


def words_of(n, seed):
    """Most words have one that follows them."""
    random = torch.Generator().manual_seed(seed)
    words = [0]
    while len(words) < n:
        strays = torch.rand((), generator=random) < 0.1
        words.append(int(torch.randint(N_WORDS, (), generator=random)) if strays else (7 * words[-1] + 3) % N_WORDS)
    return torch.tensor(words)


def train(steps):
    torch.manual_seed(0)
    model = DistributedDataParallel(WordModel())
    text = words_of(BATCH * (BPTT * steps + 1), dist.get_rank()).view(BATCH, -1).t()
    lr, hidden, losses = 5.0, None, []
    for begin in range(0, BPTT * steps, BPTT):
        model.zero_grad()
        if hidden is not None:
            hidden = tuple(each.detach() for each in hidden)
        output, hidden = model(text[begin : begin + BPTT], hidden)
        loss = cross_entropy(output, text[begin + 1 : begin + BPTT + 1].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=-lr)
        losses.append(loss.item())
    return losses, [model]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    print(train(50)[0])
    dist.destroy_process_group()
