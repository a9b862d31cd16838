"""Machine code with and without a place on disk to keep it."""

import pytest

from laconic.kernels.cpu import compile as compiled
from support.child_processes import started
from support.process_samples import Dividing

pytestmark = pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")


@pytest.fixture
def divided_with(capfd):
    """What a process prints that divides 8 by 2, its kernels kept in a folder. It is forked before it has any."""

    def divided(folder):
        with started(Dividing) as process:
            process.call("divide", folder=str(folder))
        return capfd.readouterr()

    return divided


@pytest.mark.slow
def test_machine_code_is_saved_read_compiled_again_where_it_is_damaged_and_else_stays_in_memory(tmp_path, divided_with):
    cold, warm = divided_with(tmp_path), divided_with(tmp_path)
    (folder_of_version,) = tmp_path.glob("laconic-kernels-*/laconic-*-numba-*")
    files = {path.name: path.read_bytes() for path in folder_of_version.glob("*.kernel")}
    for path in folder_of_version.glob("divide-*.kernel"):
        path.write_bytes(path.read_bytes()[:-1])
    damaged, mended = divided_with(tmp_path), divided_with(tmp_path)
    tmp_path.chmod(0o777)
    unsafe = divided_with(tmp_path)

    assert {ended.out for ended in (cold, warm, damaged, mended, unsafe)} == {"4.0\n"}
    assert cold.err == f"compiling kernels, once a machine; kept in {folder_of_version}\n"
    assert warm.err == mended.err == ""
    assert damaged.err.startswith(cold.err.strip())
    assert damaged.err.endswith("is damaged, and is replaced\n")
    assert files.keys() == {path.name for path in folder_of_version.glob("*.kernel")}
    assert f"cannot be kept: other users can write into {tmp_path};" in unsafe.err
    assert unsafe.err.count("\n") == 1


@pytest.mark.slow
def test_two_processes_that_need_the_same_at_the_same_time_compile_it_once(tmp_path):
    with started(Dividing) as one, started(Dividing) as other:
        for process in (one, other):
            process.request("divide", {"folder": str(tmp_path)})
        assert sorted(process.receive().result for process in (one, other)) == [0, 1]
    assert not list(tmp_path.rglob("*.lock"))
