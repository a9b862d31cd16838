"""Partitions with unlike workers: which shard each has, that no example is lost, and what they print."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import OptionError
from laconic.lab.partitions import partition_of, summary
from laconic.lab.runs.files import read_record, write_record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from support.command_line import laconic

LABELS = torch.arange(600) * 7 % 10
KINDS = ("labels", "dirichlet", "unequal")


def made(kind, **options):
    return partition_of(kind, LABELS, **{"n_workers": 5, "batch_size": 4, "seed": 3, "dirichlet_alpha": 1.0, **options})


@pytest.mark.parametrize("kind", [*KINDS, "fixed"])
@settings(deadline=None, max_examples=25)
@given(n_workers=st.integers(1, 7), seed=st.integers(0, 2**63 - 1))
def test_each_example_is_in_the_shard_of_one_worker(kind, n_workers, seed):
    partition = partition_of(kind, LABELS, n_workers=n_workers, batch_size=1, seed=seed, dirichlet_alpha=20.0)
    assert torch.cat(list(partition.shards)).sort().values.tolist() == list(range(600))


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_goes_through_its_shard_before_it_repeats_and_in_another_order_then(kind):
    partition = made(kind)
    for rank, shard in enumerate(partition.shards):
        n = len(shard) // 4
        passes = [torch.cat([partition.batch(rank, k * n + place) for place in range(n)]) for k in range(2)]
        for one in passes:
            assert len(one.unique()) == 4 * n
            assert set(one.tolist()) <= set(shard.tolist())
        assert not torch.equal(*passes)
    assert partition.rounds_per_epoch == 600 // 20


@pytest.mark.parametrize("kind", KINDS)
def test_batches_depend_on_the_fields_alone(kind):
    asked = [(rank, number) for number in (0, 40, 3, 90) for rank in range(5)]
    expected = {key: made(kind).batch(*key).tolist() for key in asked}
    before = torch.random.get_rng_state()
    one = made(kind)
    assert {key: one.batch(*key).tolist() for key in reversed(asked)} == expected
    assert torch.equal(torch.random.get_rng_state(), before)
    assert any(made(kind, seed=4).batch(*key).tolist() != expected[key] for key in asked)


def test_shards_of_labels_give_each_worker_few_classes():
    few = made("labels", n_workers=10)
    assert all(len(LABELS[shard].unique()) <= 4 for shard in few.shards)
    assert any(len(LABELS[shard].unique()) > 4 for shard in made("labels", n_workers=10, shards_per_worker=6).shards)


def test_a_small_alpha_gives_each_class_to_few_workers_and_a_large_one_to_all_alike():
    def largest(alpha):
        shards = made("dirichlet", dirichlet_alpha=alpha, batch_size=1, seed=1).shards
        return max(int(LABELS[shard].bincount().max()) / len(shard) for shard in shards)

    assert largest(1000.0) < 0.15 < 0.4 < largest(0.1)


def test_unequal_shards_rise_to_the_ratio():
    sizes = [len(shard) for shard in made("unequal", size_ratio=8.0).shards]
    assert sizes == sorted(sizes)
    assert sizes[-1] / sizes[0] == pytest.approx(8, rel=0.05)
    assert [len(shard) for shard in made("unequal", size_ratio=1.0).shards] == [120] * 5


def test_a_worker_without_a_full_batch_is_refused_with_what_it_has():
    with pytest.raises(OptionError, match=r"batch_size=4 is too large: the shard of worker \d+ has 0 examples of 600"):
        made("dirichlet", dirichlet_alpha=0.01, n_workers=30)
    with pytest.raises(OptionError, match=r"batch_size=40 .* shard of worker 0 has 30 examples of 600"):
        made("unequal", size_ratio=9.0, batch_size=40)


def test_an_option_of_another_partition_is_refused():
    with pytest.raises(OptionError, match=r"size_ratio=2.0 is for partition='unequal', not labels"):
        RunSettings(algorithm="sgd", partition="labels", size_ratio=2.0)


def test_a_summary_counts_the_classes_of_each_worker():
    partition = made("labels")
    heading, *rows, last = summary(partition, LABELS, 10)
    assert heading.split()[:4] == ["worker", "examples", "class", "0"]
    for rank, (row, shard) in enumerate(zip(rows, partition.shards, strict=True)):
        counts = LABELS[shard].bincount(minlength=10).tolist()
        n_classes = str(sum(count > 0 for count in counts))
        assert row.split()[:-1] == [str(rank), str(len(shard)), *map(str, counts), n_classes]
    assert last == "30 rounds in an epoch"
    assert "class 0" not in summary(partition, LABELS, 100)[0]
    assert summary(made("resample"), LABELS, 10) == [
        "every worker draws from all 600 examples, anew in each epoch; 30 rounds in an epoch"
    ]


def test_the_command_shows_the_partition_that_a_run_has():
    shown = laconic("data", "partition", "--workers", "3", "--partition", "unequal", "--batch-size", "8")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == ["worker", "0", "1", "2", "59"]


def test_the_command_draws_the_partition_and_writes_its_figures(tmp_path):
    picture, figures = tmp_path / "shards.png", tmp_path / "shards.json"
    options = ("--workers", "3", "--partition", "unequal", "--batch-size", "8")
    shown = laconic("data", "partition", *options, "--plot", str(picture), "--json", str(figures))
    assert (shown.code, picture.read_bytes()[:4]) == (0, b"\x89PNG")
    found = json.loads(figures.read_text())
    sizes = [worker["examples"] for worker in found["workers"]]
    assert sum(sizes) == found["train_examples"] == 1438
    assert [sum(worker["of_class"]) for worker in found["workers"]] == sizes
    refused = laconic("data", "partition", "--plot", str(tmp_path / "none.png"))
    assert refused.code == 2
    assert "draws shards, and with --partition resample all workers draw from all examples" in refused.err
    missing = laconic("data", "check", "mnist", "--data", str(tmp_path), "--json", "-")
    assert missing.code == 1
    assert [file["is_right"] for file in json.loads(missing.out)["files"]] == [False] * 4


def test_a_record_knows_who_had_which_examples_and_keeps_it_in_its_folder(tmp_path):
    shared = RunSettings(algorithm="sgd", model="linear", batch_size=140, epochs=1, partition="dirichlet")
    record = run_simulated(shared, lambda progress: None)
    assert [share.examples for share in record.shares] == [sum(share.of_class) for share in record.shares]
    assert len(record.shares) == shared.workers
    write_record(tmp_path, record)
    assert list(read_record(tmp_path, shared).shares) == list(record.shares)
    alike = RunSettings(algorithm="sgd", model="linear", batch_size=140, epochs=1)
    assert "shares" not in run_simulated(alike, lambda progress: None).summary()
