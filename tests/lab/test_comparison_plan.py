"""A comparison's file: what it asks for, and one line with file and line for whatever is wrong in it."""

import json
from pathlib import Path

import pytest
import tomli_w

from laconic.errors import OptionError, Spelling
from laconic.lab.comparison.plan import Comparison
from laconic.lab.comparison.plan_file import Asked, read_comparison
from laconic.lab.comparison.results import measured_before
from laconic.lab.comparison.shipped import experiment_file, shipped_experiments
from support.inputs import over_inputs

TEXT = """
algorithms = [
  "sgd",
  {algorithm = "ssgd-mv", as = "mv-1%", lr = 0.2, set = {density = 0.01}},
  {algorithm = "ssgd-mv", as = "mv-5%"},
]
seeds = [3, 4]
epochs = 2
dense_epochs = 1
partitions = ["resample", {partition = "dirichlet", dirichlet_alpha = 0.1}]
target = 0.9

[lr_of]
sgd = 0.5

[set."mv-5%"]
density = 0.05

[networks.home]
bandwidth = "10Mbit"
[networks.office]
bandwidth = "1Gbit"
latency = "1ms"
"""


def asked_in(folder, text):
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_comparison(path)


def cells_in(folder, text):
    asked = asked_in(folder, text)
    return asked.check(asked.comparison())


def complaint(folder, text):
    """What is said of a file, without its name."""
    with pytest.raises(ValueError, match=r".") as caught:
        cells_in(folder, text)
    return str(caught.value).replace(f"{folder / 'mine.toml'}", "FILE")


def test_a_file_makes_a_cell_of_every_variant_network_partition_and_seed(tmp_path):
    asked = asked_in(tmp_path, TEXT)
    cells = asked.check(asked.comparison())
    assert len({cell.folder for cell in cells}) == len(cells) == 3 * 2 * 2 * 2
    folders = {cell.folder: cell.settings for cell in cells}
    sparse = folders["cells/mv-1%/office/dirichlet-0.1/seed-4"]
    assert (sparse.algorithm, sparse.lr, sparse.seed, sparse.latency) == ("ssgd-mv", 0.2, 4, "1ms")
    assert (sparse.dirichlet_alpha, sparse.set, sparse.epochs) == (0.1, {"density": "0.01"}, 2)
    assert folders["cells/mv-5%/home/resample/seed-3"].set == {"density": "0.05"}
    dense = folders["cells/sgd/home/resample/seed-3"]
    assert (dense.lr, dense.dense_epochs) == (0.5, None), "sgd has no dense rounds, the others have"


def test_what_was_asked_is_written_as_a_file_that_asks_for_the_same(tmp_path):
    comparison = asked_in(tmp_path, TEXT).comparison()
    again = asked_in(tmp_path, tomli_w.dumps(comparison.as_data())).comparison()
    assert [cell.settings for cell in again.cells()] == [cell.settings for cell in comparison.cells()]
    assert [cell.folder for cell in again.cells()] == [cell.folder for cell in comparison.cells()]
    assert again.target == comparison.target


WRONG = {
    "an unknown key": ("seed = 1", "FILE, line 1: unknown key 'seed'", "did you mean seeds"),
    "an unknown key of a variant": (
        'algorithms = [\n  "sgd",\n  {algorithm = "ec-sgd", epoch = 3},\n]',
        "FILE, line 3: unknown key 'epoch'", "did you mean epochs"),
    "an unknown key of a network": (
        'algorithms = ["sgd"]\n[networks.home]\nlatency = "1ms"\nbandwith = "1Mbit"',
        "FILE, line 4: unknown key 'bandwith'", "did you mean bandwidth"),
    "an unknown key of a partition": (
        'algorithms = ["sgd"]\n[[partitions]]\npartition = "fixed"\n[[partitions]]\nkind = "labels"',
        "FILE, line 5: unknown key 'kind'"),
    "a wrong value of all cells": ('algorithms = ["sgd"]\nepochs = 0', "FILE, line 2: epochs = 0 must be at least 1"),
    "a wrong value of a variant": (
        'algorithms = [\n"sgd",\n{algorithm = "ec-sgd", lr = 0},\n]', "FILE, line 3: lr = 0 must be above 0"),
    "a wrong rate": ('algorithms = ["sgd"]\n[lr_of]\nsgd = "fast"', "FILE, line 3: lr = 'fast' must be a number"),
    "a method that is not there": (
        'epochs = 1\nalgorithms = [\n"sgd",\n{algorithm = "ec-sdg"},\n]',
        "FILE, line 4: algorithm = 'ec-sdg' must be one of", "did you mean ec-sgd", "(of ec-sdg)"),
    "a hyper-parameter that is not there": (
        'algorithms = ["sgd", "ssgd-mv"]\n[set.ssgd-mv]\nbits = 4\ndensty = 0.1',
        "FILE, line 4: ssgd-mv: unknown key 'densty'", "did you mean density", "(of ssgd-mv)"),
    "a hyper-parameter out of bounds": (
        'algorithms = [\n"sgd",\n{algorithm = "ssgd-mv", set = {density = 2}}]',
        "FILE, line 3: ssgd-mv: density=2", "(of ssgd-mv)"),
    "two of one label": (
        'algorithms = [\n"sgd",\n{algorithm = "sgd", lr = 0.1},\n]', "FILE, line 3: sgd is named twice", "`as`"),
    "a label that is no folder": (
        'algorithms = [{algorithm = "sgd", as = "../sgd"}]', "FILE, line 1: as = '../sgd' must be", "a folder"),
    "seeds as a number": ('algorithms = ["sgd"]\nseeds = 3', "FILE, line 2: seeds must be a list"),
    "a seed twice": ('algorithms = ["sgd"]\nseeds = [1, 1]', "FILE, line 2: seeds: 1 is given twice"),
    "no seed": ('algorithms = ["sgd"]\nseeds = []', "FILE, line 2: seeds: there is none"),
    "no method": ("epochs = 1", "FILE: algorithms: there is no method to compare"),
    "settings of what is not compared": (
        'algorithms = ["sgd"]\n[set.ec-sgd]\nx = 1', "FILE, line 2: set = 'ec-sgd.x': not among what is compared"),
    "what is typed": (
        'algorithms = ["sgd"]\njobs = 2', "FILE, line 2: jobs is no key: ", "and --jobs how this is done this time"),
    "a network twice": (
        'algorithms = ["sgd"]\nlatency = "1ms"\n[networks.home]\nlatency = "2ms"', "of every cell", "networks"),
    "an option of another partition": (
        'algorithms = ["sgd"]\n\n[[partitions]]\npartition = "fixed"\nsize_ratio = 2.0',
        "FILE, line 5: size_ratio = 2.0 is for partition = 'unequal'"),
    "a target above 1": ('algorithms = ["sgd"]\ntarget = 95', "FILE, line 2: target = 95 must be a share"),
    "no list": ('algorithms = "sgd"', "FILE, line 1: algorithms must be a list"),
    "no TOML": ('algorithms = ["sgd"\nepochs = 1', "is not TOML"),
}  # fmt: skip


@over_inputs("what", WRONG)
def test_whatever_is_wrong_is_one_line_with_the_file_and_the_line(what, tmp_path):
    text, *words = WRONG[what]
    line = complaint(tmp_path, text)
    assert "\n" not in line
    assert not [word for word in words if word not in line], line


def test_a_mistake_that_was_typed_names_the_option_and_not_the_file(tmp_path):
    typed = asked_in(tmp_path, TEXT).with_typed(Asked(seeds=(1, 1)))
    with pytest.raises(OptionError) as caught:
        typed.comparison()
    assert caught.value.spelled(Spelling.FLAG) == "--seeds: 1 is given twice"


NOTED = {
    "folder": "cells/sgd/-/iid/seed-0", "label": "sgd", "algorithm": "sgd", "seed": 0, "network": None,
    "partition": "iid", "state": "finished", "why": None, "seconds": 1.5, "peak_memory_bytes": None,
}  # fmt: skip
EDITED = {
    "no JSON": ('{"cells": [\n}', ", line 2: it is no JSON: "),
    "no cells": ("[]", ': it has no list "cells"'),
    "no cell": ('{"cells": [3]}', ": cells[0] is 3; expected was an object"),
    "a word that is missing": (
        json.dumps({"cells": [NOTED, {key: NOTED[key] for key in list(NOTED)[:-1]}]}),
        ": cells[1] has the keys folder"),
    "a number as a text": (
        json.dumps({"cells": [NOTED | {"seconds": "2"}]}), ": cells[0].seconds is '2'; expected was "),
    "a state that is none": (
        json.dumps({"cells": [NOTED | {"state": "done"}]}),
        ": cells[0].state is 'done'; expected was one of finished, "),
}  # fmt: skip


@over_inputs("what", EDITED)
def test_what_was_edited_in_a_comparison_that_goes_on_is_named_with_its_place(what, tmp_path):
    text, words = EDITED[what]
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(OptionError) as caught:
        measured_before(tmp_path)
    message = caught.value.spelled(Spelling.FLAG)
    assert message.startswith(f"--resume: {tmp_path / 'comparison.json'}{words}"), message
    assert message.endswith("; mend it, or remove it to go on without it")


def test_what_is_typed_wins_over_the_file(tmp_path):
    asked = asked_in(tmp_path, TEXT)
    typed = Asked(
        options={"epochs": 5, "latency": "3ms"}, seeds=(7,), set={"mv-5%.density": "0.2"}, lr_of={"mv-1%": 0.9},
        variants={**asked.variants, "again": {"algorithm": "sgd"}},
    )  # fmt: skip
    cells = {cell.folder: cell.settings for cell in asked.with_typed(typed).comparison().cells()}
    assert len(cells) == 4 * 2, "one seed and one network"
    found = cells["cells/mv-5%/-/resample/seed-7"]
    assert (found.epochs, found.latency, found.set) == (5, "3ms", {"density": "0.2"})
    assert cells["cells/mv-1%/-/resample/seed-7"].lr == 0.9
    assert cells["cells/again/-/resample/seed-7"].algorithm == "sgd"


def test_every_experiment_that_comes_with_laconic_is_found_by_name_and_valid():
    assert "experiments/quick.toml" in shipped_experiments()
    for name in shipped_experiments():
        asked = read_comparison(experiment_file(Path(name)))
        assert asked.check(asked.comparison())


def test_names_of_partitions_have_their_parameters():
    comparison = Comparison(variants={"sgd": {"algorithm": "sgd"}}, options={"partition": "unequal", "size_ratio": 8.0})
    assert [cell.partition for cell in comparison.cells()] == ["unequal-8"]
    with pytest.raises(OptionError, match="there is no method"):
        Comparison(variants={})
