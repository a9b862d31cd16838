"""Partitions: who trains on which examples, whoever asks and in whichever order."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.lab.partitions import Partition, partition_of


def example(**changes: object) -> Partition:
    parts: dict[str, object] = {"n_examples": 50, "n_workers": 3, "batch_size": 4, "seed": 5}
    return Partition(**(parts | changes))  # type: ignore[arg-type]


def one_epoch(partition: Partition, epoch: int = 0) -> list[list[int]]:
    """Every example each worker sees in an epoch, worker by worker."""
    rounds = range(epoch * partition.rounds_per_epoch, (epoch + 1) * partition.rounds_per_epoch)
    return [
        [place for number in rounds for place in partition.batch(rank, number).tolist()]
        for rank in range(partition.n_workers)
    ]


def seen(worker: int, partition: Partition, n_epochs: int) -> set[int]:
    return {place for epoch in range(n_epochs) for place in one_epoch(partition, epoch)[worker]}


modes = pytest.mark.parametrize("mode", ["resample", "fixed"])


def test_rounds_are_complete():
    assert example().rounds_per_epoch == 4  # 4 rounds of 3 x 4 examples, 2 examples left out
    assert example(n_examples=12).rounds_per_epoch == 1


@modes
def test_a_batch_is_a_vector_of_indices(mode):
    batch = example(mode=mode).batch(1, 2)
    assert batch.dtype == torch.int64
    assert batch.shape == (4,)


@settings(deadline=None)  # a shared machine may stall for longer than any example takes
@given(
    n_workers=st.integers(1, 6),
    batch_size=st.integers(1, 5),
    n_more=st.integers(0, 40),
    seed=st.integers(0, 2**63 - 1),
    mode=st.sampled_from(["resample", "fixed"]),
    epoch=st.integers(0, 3),
)
def test_no_example_is_in_two_batches_of_an_epoch(n_workers, batch_size, n_more, seed, mode, epoch):
    n = n_workers * batch_size + n_more
    partition = Partition(n_examples=n, n_workers=n_workers, batch_size=batch_size, seed=seed, mode=mode)
    indices = [place for worker in one_epoch(partition, epoch) for place in worker]
    assert len(indices) == len(set(indices)) == partition.rounds_per_epoch * n_workers * batch_size
    assert set(indices) <= set(range(n))


@modes
def test_a_batch_is_the_same_in_whichever_order_it_is_asked_for(mode):
    asked = [(rank, number) for number in range(12) for rank in range(3)]
    forward = example(mode=mode)
    expected = {key: forward.batch(*key).tolist() for key in asked}
    backward = example(mode=mode)
    assert {key: backward.batch(*key).tolist() for key in reversed(asked)} == expected
    alone = {key: example(mode=mode).batch(*key).tolist() for key in asked}
    assert alone == expected


@modes
def test_the_global_generator_is_neither_used_nor_heeded(mode):
    before = torch.random.get_rng_state()
    one = example(mode=mode).batch(0, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    second = example(mode=mode).batch(0, 0)
    torch.random.set_rng_state(before)
    assert torch.equal(one, second)


@modes
def test_another_seed_or_epoch_gives_other_batches(mode):
    assert one_epoch(example(mode=mode)) != one_epoch(example(mode=mode, seed=6))
    assert one_epoch(example(mode=mode), 0) != one_epoch(example(mode=mode), 1)


def test_a_fixed_shard_stays_with_its_worker_and_every_example_is_trained_on():
    partition = example(mode="fixed")
    shards = [seen(worker, partition, 30) for worker in range(3)]
    assert sorted(len(shard) for shard in shards) == [16, 17, 17]
    assert set.union(*shards) == set(range(50))


def test_resampling_gives_every_worker_every_example_in_time():
    partition = example()
    assert all(seen(worker, partition, 40) == set(range(50)) for worker in range(3))


@modes
def test_a_changed_batch_does_not_change_the_partition(mode):
    partition = example(mode=mode)
    batch = partition.batch(0, 0).tolist()
    partition.batch(0, 0).zero_()
    assert partition.batch(0, 0).tolist() == batch


@modes
def test_no_more_than_one_epoch_is_cached(mode):
    partition = example(mode=mode)
    for number in range(40):
        partition.batch(0, number)
    assert len(partition._dealt) == 1


def test_equal_settings_are_equal_partitions_whatever_was_asked():
    one, second = example(), example()
    one.batch(0, 0)
    assert one == second
    assert hash(one) == hash(second)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_examples": 0}, "n_examples=0 must be at least 1"),
        ({"n_workers": 0}, "n_workers=0 must be at least 1"),
        ({"batch_size": -2}, "batch_size=-2 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be 0 to"),
        ({"seed": 2**63}, "must be 0 to"),
        ({"mode": "shuffle"}, "mode='shuffle' must be one of resample, fixed"),
        ({"batch_size": 17}, "batch_size=17 .* 3 workers share 50 examples.*; the largest that works is 16"),
        ({"n_workers": 51}, "51 workers share 50 examples, .*take fewer workers"),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        example(**changes)


def test_more_shards_than_there_are_examples_are_refused_before_they_are_made():
    labels, options = torch.arange(100) % 4, {"n_workers": 4, "batch_size": 1, "seed": 0}
    with pytest.raises(ValueError, match=r"shards_per_worker=100000000 must be at most 25: 4 workers share 100 ex"):
        partition_of("labels", labels, shards_per_worker=10**8, **options)
    assert len(partition_of("labels", labels, shards_per_worker=25, **options).shards) == 4


def test_the_largest_batch_size_named_in_the_refusal_works():
    assert example(batch_size=16).rounds_per_epoch == 1


@pytest.mark.parametrize(
    ("rank", "number", "words"), [(3, 0, "rank=3"), (-1, 0, "rank=-1"), (0, -1, "round_number=-1")]
)
def test_a_batch_that_is_not_there_is_refused(rank, number, words):
    with pytest.raises(ValueError, match=words):
        example().batch(rank, number)
