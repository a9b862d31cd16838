"""A small decoder-only transformer over characters.

Vaswani et al.: Attention Is All You Need, 2017, with layer norm before each part (Radford et al. 2019).
Shapes: n windows, t characters in a window, w the width.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

N_LAYERS = 5
N_PARALLEL = 4
_INNER = 4  # times the width: hidden units of a layer


def transformer(input_shape: tuple[int, ...], n_classes: int, *, width: int = 128) -> nn.Module:
    """Five layers of attention over characters; 1,016,513 parameters for 64 characters of 65 kinds and width 128."""
    if len(input_shape) != 1:
        raise ValueError(f"transformer: input_shape={input_shape} must be (window,), the number of characters")
    if width % N_PARALLEL:
        raise ValueError(f"transformer: width={width} must be a multiple of {N_PARALLEL}, its parallel attentions")
    return nn.Sequential(
        OrderedDict(
            embed=_Embedding(input_shape[0], n_classes, width),
            **{f"layer{number}": _Layer(width) for number in range(1, N_LAYERS + 1)},
            norm=nn.LayerNorm(width),
            scores=nn.Linear(width, n_classes),
        )
    )


class _Embedding(nn.Module):
    """The vectors of the characters plus those of their positions."""

    def __init__(self, context: int, n_kinds: int, width: int) -> None:
        super().__init__()
        self.character = nn.Embedding(n_kinds, width)
        self.place = nn.Embedding(context, width)

    def forward(self, characters: Tensor) -> Tensor:
        """(n, t) int64 -> (n, t, w)."""
        positions: Tensor = self.place(torch.arange(characters.shape[1], device=characters.device))
        embedded: Tensor = self.character(characters)
        return embedded + positions


class _Layer(nn.Module):
    """Attention to what stands before, then two linear layers; both are added to what they get."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, _INNER * width)
        self.out = nn.Linear(_INNER * width, width)

    def forward(self, states: Tensor) -> Tensor:
        """(n, t, w) -> (n, t, w)."""
        n, t, width = states.shape
        parts = self.queries_keys_values(self.attention_norm(states)).view(n, t, 3, N_PARALLEL, width // N_PARALLEL)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        states = states + self.attended(mixed.transpose(1, 2).reshape(n, t, width))
        hidden: Tensor = self.out(nn.functional.gelu(self.hidden(self.hidden_norm(states))))
        return states + hidden
