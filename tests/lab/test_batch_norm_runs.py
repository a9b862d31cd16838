"""ResNet-18 on CIFAR's batches through `laconic run`: batch norm's statistics in the simulator and over processes."""

from dataclasses import replace

import pytest

from laconic.lab.runs.run import run_as_rank, run_simulated
from laconic.lab.runs.saved import check_saving
from laconic.lab.runs.settings import RunSettings
from support.cifar_batches import cifar10_folder
from support.ranks import run_ranks

pytestmark = [
    pytest.mark.slow, pytest.mark.xdist_group(__name__),
    pytest.mark.filterwarnings("ignore:.*the checksum is not the published one"),
]  # fmt: skip


def settings(folder, **options):
    chosen = {
        "algorithm": "sgd", "workers": 2, "dataset": "cifar10", "data": str(folder), "model": "resnet18", "width": 2,
        "batch_size": 4, "epochs": 2, "lr": 0.05, "augment": True, "examples": 16,
    } | options  # fmt: skip
    return RunSettings(**chosen)


def rows_of_rank(rank, run):
    import warnings

    warnings.simplefilter("ignore", UserWarning)  # of checksums, in this process
    record = run_as_rank(run, lambda progress: None)
    return [(row.train_loss, row.test_accuracy, row.up_wire_bytes) for row in record.rows]


def test_processes_test_with_the_mean_statistics_of_all_workers_as_the_simulator_does(tmp_path):
    folder = cifar10_folder(tmp_path, n=4, n_test=40)
    run = settings(folder)
    simulated = run_simulated(run, lambda progress: None)
    over_processes = run_ranks(rows_of_rank, 2, replace(run, driver="processes"))[0]
    assert [(row.train_loss, row.test_accuracy) for row in simulated.rows] == [row[:2] for row in over_processes]
    assert [row.up_wire_bytes for row in simulated.rows] == [row[2] for row in over_processes]


def test_a_run_that_could_not_go_on_with_the_same_statistics_is_not_saved(tmp_path):
    check_saving(settings(tmp_path))
    with pytest.raises(ValueError, match="resnet18 over processes cannot go on with the same figures"):
        check_saving(settings(tmp_path, driver="processes"))


def test_batch_norm_is_refused_batches_of_one():
    with pytest.raises(ValueError, match="batch_size=1 must be at least 2 with model='resnet18'"):
        settings("nowhere", batch_size=1)
