"""Machine code with and without a place on disk to keep it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import laconic
from laconic.kernels.cpu import compile as compiled

pytestmark = pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")

DIVIDE = """
import torch
from laconic.kernels import api as kernels
vector = torch.tensor([8.0])
kernels.divide(vector, 2)
print(vector.item())
"""


def divided_with(folder):
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(Path(laconic.__file__).parents[1]),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", DIVIDE], env=environment, capture_output=True, text=True, timeout=300, check=True
    )


@pytest.mark.slow
def test_machine_code_is_saved_read_compiled_again_where_it_is_damaged_and_else_stays_in_memory(tmp_path):
    cold, warm = divided_with(tmp_path), divided_with(tmp_path)
    (folder_of_version,) = tmp_path.glob("laconic-kernels-*/laconic-*-numba-*")
    files = {path.name: path.read_bytes() for path in folder_of_version.glob("*.kernel")}
    for path in folder_of_version.glob("divide-*.kernel"):
        path.write_bytes(path.read_bytes()[:-1])
    damaged, mended = divided_with(tmp_path), divided_with(tmp_path)
    tmp_path.chmod(0o777)
    unsafe = divided_with(tmp_path)

    assert {ended.stdout for ended in (cold, warm, damaged, mended, unsafe)} == {"4.0\n"}
    assert cold.stderr == f"compiling kernels, once a machine; kept in {folder_of_version}\n"
    assert warm.stderr == mended.stderr == ""
    assert damaged.stderr.startswith(cold.stderr.strip())
    assert damaged.stderr.endswith("is damaged, and is replaced\n")
    assert files.keys() == {path.name for path in folder_of_version.glob("*.kernel")}
    assert f"cannot be kept: other users can write into {tmp_path};" in unsafe.stderr
    assert unsafe.stderr.count("\n") == 1
