"""Machine code with and without a place on disk to keep it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import laconic
from laconic.kernels.cpu import compile as compiled

pytestmark = pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")

QUANTIZE = """
import torch
from laconic.kernels import api as kernels
vector = torch.arange(9.0)
codes = kernels.quantize(vector, vector[:1], vector[8:], (9,), 3, 0, 1)
print(kernels.dequantize(codes, vector[:1], vector[8:], (9,), 3).tolist()[::8])
"""


def quantized_with(cache_classes, folder):
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(folder), "NUMBA_CACHE_LOCATOR_CLASSES": cache_classes,
        "PYTHONPATH": str(Path(laconic.__file__).parents[1]),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", QUANTIZE], env=environment, capture_output=True, text=True, timeout=300, check=True
    )


@pytest.mark.slow
def test_an_initial_use_reports_once_that_it_compiles_and_a_second_one_reads_from_disk(tmp_path):
    one, second = (quantized_with("", tmp_path) for _ in range(2))
    assert one.stdout == second.stdout == "[0.0, 8.0]\n"
    assert one.stderr == "compiling kernels, once; they are kept on disk\n"
    assert second.stderr == ""


@pytest.mark.slow
def test_without_a_place_to_keep_it_machine_code_is_made_in_each_process(tmp_path):
    # No locator of numba's that is left finds a place for an ordinary file: the same as with no folder to write to.
    for _ in range(2):
        ended = quantized_with("_IPythonCacheLocator", tmp_path)
        assert ended.stdout == "[0.0, 8.0]\n"
        assert "compiling" in ended.stderr
