"""numba checks every index on request, and no kernel leaves its arrays then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import laconic
from laconic.kernels.cpu import compile as compiled

pytestmark = pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")

ROOT = Path(__file__).parents[2]
BEYOND = """
import numpy as np
from laconic.kernels.api import kernel

def at(array, place):
    return array[place]

print(kernel(at)(np.zeros(4), 4))
"""


def checked(arguments, folder, timeout_s):
    """Run Python with checks of indices, and machine code of its own in `folder`."""
    environment = {
        **os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder),
        "PYTHONPATH": str(Path(laconic.__file__).parents[1]),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
    )


@pytest.mark.slow
def test_an_index_beyond_an_array_is_seen_on_request(tmp_path):
    ended = checked(["-c", BEYOND], tmp_path, 300)
    assert ended.returncode == 1
    assert "IndexError: index is out of bounds" in ended.stderr


@pytest.mark.nightly
def test_no_kernel_leaves_its_arrays(tmp_path):
    """Every kernel is compiled anew, which takes minutes."""
    folders = ["tests/kernels", "tests/compressors", "tests/wire", "tests/network"]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--deselect", "tests/kernels/test_compile.py"]
    ended = checked(["-m", "pytest", *options, *folders], tmp_path, 7200)
    assert ended.returncode == 0, ended.stdout[-4000:]
