"""Runs of items keep their names: what has been recorded is found again after methods and settings have grown.

`item-keys.json` has the name of every row's run with its setting's earliest seed. `LACONIC_REWRITE_GOLDEN=1` adds the
rows that are new; a name that has changed means that finished runs would be trained again. One that is meant to change,
as with a starting value of the command line that an item runs with, is taken out of the file by hand.
"""

import json
import os
from pathlib import Path

from laconic.contract import ALGORITHMS
from laconic.lab.algorithms import make_algorithm
from laconic.reproduce.item_runs import Choices, planned_cells
from laconic.reproduce.items import items, setting_of
from laconic.reproduce.later_options import LATER, without_later

FILE = Path(__file__).with_name("item-keys.json")


def keys_now():
    return {
        f"{name}: {cell.row}": cell.key
        for name, item in items().items()
        if item.setting
        for cell in planned_cells(item, Choices(seeds=setting_of(item.setting).seeds[:1]))
    }


def test_no_recorded_run_has_another_name_than_it_had():
    now = keys_now()
    recorded = json.loads(FILE.read_text())
    changed = [name for name, key in recorded.items() if name in now and now[name] != key]
    assert not changed, f"name new hyper-parameters with their defaults in later_options.py; finished are {changed}"
    if os.environ.get("LACONIC_REWRITE_GOLDEN") == "1":
        FILE.write_text(json.dumps({**now, **recorded}, indent=0, sort_keys=True) + "\n")
    assert not now.keys() - json.loads(FILE.read_text()).keys(), "LACONIC_REWRITE_GOLDEN=1 adds these rows"


def test_a_later_hyper_parameter_is_left_out_at_its_default_alone():
    for method, later in LATER.items():
        defaults = make_algorithm(method, {})
        for name, text in later.items():
            assert name in ALGORITHMS[method].__dataclass_fields__, (method, name)
            assert str(getattr(defaults, name)).lower() == text, (method, name)
    assert without_later("sasg", {"answer": "dense", "k": "3"}) == {"k": "3"}
    assert without_later("sasg", {"answer": "sparse"}) == {"answer": "sparse"}
