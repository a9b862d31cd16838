"""The page of reproductions: times beside their limits, pictures, searches of learning rates, earlier code."""

from laconic.report.items_page import ItemOnPage, page_of
from laconic.reproduce.grid import finished_tries, tries_of
from laconic.reproduce.item_runs import Choices, Folder
from laconic.reproduce.items import item_of
from laconic.reproduce.time_spent import TimeSpent


def shown(name, minutes, n_left=0, **more):
    spent = TimeSpent(seconds={f"of {name}": 120.0 * minutes} if minutes else {}, n_left=n_left)
    return ItemOnPage(item=item_of(name), lines=[], spent=spent, **more)


def test_measured_times_stand_beside_what_they_may_be(tmp_path):
    found = [shown("000-fig2", 45), shown("001-fig4", 15, n_left=2), shown("003-fig1.6", 0.01), shown("004-fig3", 0)]
    page = page_of(found, Folder(tmp_path).made_with())
    assert "| 000-fig2 | Figure 2 | trained | 45.0 |" in page
    assert "| 001-fig4 | Figure 4 | trained | 15.0 and more |" in page
    assert "| 003-fig1.6 | Figure 1.6 | computed | < 0.1 |" in page
    assert "| 004-fig3 | Figure 3 | trained |  |" in page
    assert "all items take 1.00 hours, and not all has been run; they may take 4, and an item 30 minutes" in page
    assert "Above 30 minutes are 000-fig2 (45)." in page


def test_a_picture_stands_below_its_table_and_figures_of_earlier_code_are_named(tmp_path):
    found = [shown("000-fig2", 1, picture="page/000-fig2.svg"), shown("003-table1.1-gd", 1, is_stale=True)]
    page = page_of(found, Folder(tmp_path).made_with())
    assert "![Figure 2: top-1 accuracy by c = c~, skips 0.3 and 0.1](page/000-fig2.svg)" in page
    assert page.count("Computed by an earlier version of the code: run it again.") == 1


def test_a_finished_search_stands_with_its_setting(tmp_path):
    folder, items, choices = Folder(tmp_path), [item_of("004-rescaling"), item_of("000-table1")], Choices()
    for number, one in enumerate(tries_of(items[:1], choices)):
        if number:  # of one row a try is missing
            folder.keep_cell(one.cell, {"looks": [{"test_accuracy": 0.9, "gap": None}], "seconds": 1.0})
    tries = finished_tries(items, choices, folder)
    assert len({one.row for one in tries}) == 1
    page = page_of([shown("004-rescaling", 0)], folder.made_with(), [(one, 90.0) for one in tries])
    assert "Searched with `--grid`: the same tries for each method, seed 0, 2 epochs." in page
    assert sum(line.endswith("| 90 |") for line in page.splitlines()) == 3
