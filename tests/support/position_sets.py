"""Sets of positions of every shape: random, clustered, empty, full, at the ends of huge ranges."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor


def random_support(count: int, k: int, seed: int = 0) -> Tensor:
    """k of `count` positions, all sets equally likely."""
    return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(count, k, replace=False)).astype(np.int64))


@st.composite
def supports(draw, maximum: int = 2**32) -> tuple[Tensor, int]:
    """Ascending positions (k,) int64, and the count that they are below: at most `maximum`."""
    count = draw(
        st.one_of(
            st.integers(1, min(50, maximum)), st.sampled_from((1, 2, maximum - 1, maximum)), st.integers(1, maximum)
        )
    )
    start = draw(st.integers(0, count - 1))
    stretch = draw(st.sampled_from((1, 10, 200, count)))  # how far a cluster goes
    near = st.integers(start, min(count - 1, start + stretch))
    positions = draw(st.sets(st.one_of(near, st.integers(0, count - 1)), max_size=60))
    if count <= 60 and draw(st.booleans()):
        positions = set(range(count)) - positions  # the dense ones,  the full one included
    return torch.tensor(sorted(positions), dtype=torch.int64), count
