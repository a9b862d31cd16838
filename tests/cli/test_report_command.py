"""`laconic report`: the files that it writes, and what it refuses."""

import pytest

from support.command_line import laconic
from support.comparison_folder import write_comparison
from support.inputs import over_inputs


@pytest.mark.slow
def test_the_files_are_named_and_can_go_elsewhere(tmp_path):
    folder = write_comparison(tmp_path / "runs", seeds=1, epochs=1)
    ended = laconic("report", str(folder), "--out", str(tmp_path / "new" / "page"))
    assert ended.code == 0
    names = ["report.html", "table.csv", "report.json", "curves.png", "curves.svg"]
    assert ended.out.splitlines() == [f"wrote {tmp_path / 'new' / 'page' / name}" for name in names]
    assert sorted(path.name for path in (tmp_path / "new" / "page").iterdir()) == sorted(names)
    assert not (folder / "report.html").exists()


def test_a_folder_without_runs_is_refused_in_one_line(tmp_path):
    ended = laconic("report", str(tmp_path))
    assert ended.code == 2
    assert ended.err.startswith(f"error: {tmp_path} has no run; give a folder that")
    assert len(ended.err.splitlines()) == 1
    missing = laconic("report", str(tmp_path / "none"))
    assert "is no folder; give one that" in missing.err


@over_inputs("where", ["/dev/full/page", "/proc/page", "a/file/page", "x" * 300])
def test_a_place_that_cannot_be_written_is_refused_before_a_run_is_read(where, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "a").mkdir()
    (folder / "a" / "file").write_text("")
    (folder / "comparison.json").write_text("{")
    ended = laconic("report", str(folder), "--out", str(folder / where))
    assert ended.code == 2
    assert ended.err.startswith("error: --out ")
    assert " cannot be written: " in ended.err
    assert len(ended.err.splitlines()) == 1
