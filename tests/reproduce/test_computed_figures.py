"""Computed figures that are kept: which code they are of, and how long items took."""

import sys
from importlib import invalidate_caches

from laconic.reproduce import code_hash, computed
from laconic.reproduce.item_runs import Choices, Folder, planned_cells
from laconic.reproduce.items import item_of
from laconic.reproduce.time_spent import time_of, time_of_all


def test_figures_of_other_code_stay_and_are_not_current(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.keep_computed("ring", {"values": {"steps": 6}, "seconds": 1.0})
    assert code_hash.is_current(folder.computed("ring"), "ring")
    monkeypatch.setattr(code_hash, "code_hash", lambda name: "another")
    stored = folder.computed("ring")
    assert not code_hash.is_current(stored, "ring")
    assert stored is not None
    assert stored["values"] == {"steps": 6}
    assert not code_hash.is_current(None, "ring")
    assert not code_hash.is_current({"values": {}}, "ring"), "it was kept before code was noted"


def test_the_hash_of_code_follows_its_statements_and_those_it_imports_not_its_comments(tmp_path, monkeypatch):
    package = "laconic.reproduce"
    for path, text in (("inner.py", "A = 1\n"), ("outer.py", f'"""Text."""\nfrom {package}.inner import A\nB = A\n')):
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(sys.modules[package], "__path__", [*sys.modules[package].__path__, str(tmp_path)])

    def hash_now():
        invalidate_caches()
        code_hash._hash_of.cache_clear()
        return code_hash._hash_of(f"{package}.outer")

    before = hash_now()
    (tmp_path / "outer.py").write_text(f'"""Other text."""\nfrom {package}.inner import A\n\nB = A  # why\n')
    assert hash_now() == before
    (tmp_path / "inner.py").write_text("A = 2\n")
    assert hash_now() != before
    code_hash._hash_of.cache_clear()


def test_figures_computed_in_one_file_share_its_hash():
    assert code_hash.code_hash("fit-gd") == code_hash.code_hash("speed-up")
    assert code_hash.code_hash("fit-gd") != code_hash.code_hash("ring")
    assert all(code_hash.code_hash(name) for name in computed.COMPUTED)


def test_the_time_of_items_counts_shared_runs_once_and_says_what_is_left(tmp_path):
    folder = Folder(tmp_path)
    table, figure = item_of("000-table1"), item_of("004-fig2")
    cells = {one.name: planned_cells(one, Choices()) for one in (table, figure)}
    for cell in cells["004-fig2"]:
        folder.keep_cell(cell, {"looks": [], "seconds": 120.0})
    one, other = (time_of(folder, item, cells[item.name]) for item in (figure, table))
    assert (one.minutes, one.n_left) == (6.0, 0)
    assert (other.minutes, other.n_left) == (6.0, 9)
    assert time_of_all([one, other]).minutes == 6.0
    assert time_of(folder, item_of("003-fig1.6"), []).n_left == 1
    folder.keep_computed("single-server", {"values": {}, "seconds": 12.0})
    assert time_of(folder, item_of("003-fig1.6"), []).minutes == 0.1
