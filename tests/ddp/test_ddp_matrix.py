"""A method attached to DistributedDataParallel is the same method in `DistributedOptimizer`: to the bit."""

import pytest
import torch

from support.ddp_matrix import BY_STEP, Cell, all_cells, pairwise_cells, train
from support.ranks import run_ranks


def unlike(cells: list[Cell], n: int, tolerance: float = 0.0) -> list[str]:
    """The cells in which the two ways differ, or the ranks."""
    by_rank, found = run_ranks(train, n, cells), []
    for number, cell in enumerate(cells):
        ends = [outcomes[number] for outcomes in by_rank]
        for rank, (expected, got) in enumerate(ends):
            apart = float((expected.values - got.values).abs().max())
            if not apart <= tolerance * float(expected.values.abs().max()):
                found.append(f"{cell} on rank {rank}: parameters differ by {apart}")
            if not torch.equal(got.values, ends[0][1].values):
                found.append(f"{cell}: ranks 0 and {rank} differ")
            if cell.mode == "unused" and cell.method in BY_STEP:
                continue  # DistributedDataParallel says what others use, so that a rank sends no packet in vain
            found += [f"{cell} on rank {rank}: {what}" for what in other_bytes(expected, got, cell.mode)]
    return found


def other_bytes(expected, got, mode: str) -> list[str]:
    """What the meters count otherwise: with several slices, nothing but a header and a rounded byte for each frame.

    Where a rank's set of used parameters changes, that round is sent twice; a slice may have been answered by then.
    """
    found = []
    for direction in ("up", "down"):
        one, other = getattr(expected.traffic, direction), getattr(got.traffic, direction)
        if got.slices == 1 and one != other:
            found.append(f"{direction}: {one} became {other}")
        more = other.messages - one.messages
        again = one.payload_bits // 8 if mode == "unused" and got.slices > 1 else 0
        if not 0 <= other.wire_bytes + other.local_bytes - one.wire_bytes - one.local_bytes <= 64 * more + again:
            found.append(f"{direction}: {one} became {other}")
    return found


@pytest.mark.slow
def test_every_pair_of_method_buckets_and_mode_is_the_same_with_two_ranks():
    cells = list(pairwise_cells())
    assert len({(cell.method, cell.mode) for cell in cells}) == len(cells) == 66
    assert {(cell.method, cell.buckets) for cell in cells} == {(cell.method, cell.buckets) for cell in all_cells()}
    assert {(cell.mode, cell.buckets) for cell in cells} == {(cell.mode, cell.buckets) for cell in all_cells()}
    assert not unlike(cells, 2)


@pytest.mark.nightly
@pytest.mark.parametrize("n", [2, 4])
def test_every_cell_of_the_matrix_is_the_same(n):
    # With four ranks the engine's ring adds up in an order that depends on a slice's length.
    assert not unlike(list(all_cells()), n, tolerance=0.0 if n == 2 else 1e-6)
