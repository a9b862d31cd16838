"""Finished runs of items are found again by their keys, from version to version."""

from laconic.reproduce.item_runs import Choices, planned_cells
from laconic.reproduce.items import item_of


def test_runs_that_are_finished_elsewhere_keep_their_keys():
    known_keys = {
        ("000-table1", "sgd", 0): "sgd-28954df5ef39", ("004-rescaling", "sgd", 0): "sgd-b56c1c61363d",
        ("002-fig1", "MV", 0): "ssgd-mv-da60de0e1877", ("001-fig5", "sgd", 1): "sgd-ea0a0725a088",
        ("004-table2", "signsgd-mv", 0): "signsgd-mv-de1f52e898bd",
    }  # fmt: skip
    found = {
        (name, cell.row, cell.settings.seed): cell.key
        for name in {name for name, _, _ in known_keys}
        for cell in planned_cells(
            item_of(name), Choices(data=dict.fromkeys(("fashion-mnist", "mnist", "cifar10"), "."))
        )
    }
    assert {cell: found[cell] for cell in known_keys} == known_keys, "else all that is finished is trained again"
