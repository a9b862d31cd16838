"""Kernels for a GPU on a machine without one: interpreted, compiled but not run, and picked for tensors on a GPU alone.

The interpreter works in a process of its own: Triton must know of it before it is imported, which other tests may have
done.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laconic.kernels import dispatch as families
from laconic.kernels.gpu import compile as gpu
from laconic.kernels.reference import top_k as reference_top_k

HERE = Path(__file__).parents[1]
KEY = 0x4806654E26238EC1
LAUNCHED = re.compile(r"\blaunch\(\s*(\w+)")
ROUNDED_ONCE = re.compile(r"\bfma\.|\bmad\.f|\bdiv\.(full|approx)|\.ftz\b")


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    gpu.triton_available.cache_clear()
    families.fastest.cache_clear()
    yield
    gpu.triton_available.cache_clear()
    families.fastest.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["gpu and not nightly", pytest.param("gpu and nightly", marks=pytest.mark.nightly)])
def test_interpreted_kernels_give_what_the_reference_gives(which):
    pytest.importorskip("triton")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        which,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(HERE / "gpu"),
    ]
    ran = subprocess.run(
        command,
        cwd=HERE.parent,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert re.search(r"\b\d+ passed", ran.stdout)
    assert "skipped" not in ran.stdout


def test_a_tensor_on_a_gpu_gets_the_reference_and_one_warning_where_triton_is_missing(without_triton):
    with pytest.warns(RuntimeWarning, match=r"triton cannot be imported .* `pip install triton`"):
        assert families.fastest("top_k", torch.device("cuda")) is reference_top_k
    assert families.fastest("top_k", torch.device("cuda", 1)) is reference_top_k


def test_a_tensor_on_a_gpu_gets_tritons_kernels():
    pytest.importorskip("triton")
    for family in ("top_k", "signs", "finite", "stochastic_rounding", "fractional", "position_streams"):
        assert families.fastest(family, torch.device("cuda")).__name__ == f"laconic.kernels.gpu.{family}"


@pytest.mark.slow
def test_without_a_tensor_on_a_gpu_triton_is_not_imported():
    script = (
        "import sys; from laconic.kernels.dispatch import fastest; fastest('top_k'); fastest('signs');"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=HERE.parent, timeout=120).returncode == 0


class FakeGpu:
    """What Triton asks of a GPU in order to compile for it."""

    def __init__(self, target) -> None:
        self.get_current_target = lambda: target
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device: 0


@pytest.fixture
def compiled_for_a_gpu(monkeypatch, tmp_path):
    """Kernels by name, of those started since: compiled for an NVIDIA A100 and not run."""
    pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ours = {name: module for name, module in sys.modules.items() if name.startswith("laconic.kernels.gpu.")}
    for name in ours:
        del sys.modules[name]  # they keep what they have compiled
    made = {}
    run = JITFunction.run

    def compile_alone(kernel, *arguments, warmup, **options):
        name = f"{kernel.fn.__module__}.{kernel.fn.__name__}"
        made.setdefault(name, []).append(run(kernel, *arguments, warmup=True, **options))

    monkeypatch.setattr(JITFunction, "run", compile_alone)
    monkeypatch.setattr(torch, "empty", torch.zeros)  # kernels that do not run fill nothing
    driver.set_active(FakeGpu(GPUTarget("cuda", 80, 32)))
    yield made
    driver.set_active(None)
    for name in [name for name in sys.modules if name.startswith("laconic.kernels.gpu.")]:
        del sys.modules[name]
    sys.modules.update(ours)


def start_every_kernel():
    top_k, signs, quantized, fractional, positions, residuals = (
        importlib.import_module(f"laconic.kernels.gpu.{family}")
        for family in ("top_k", "signs", "stochastic_rounding", "fractional", "position_streams", "residuals")
    )
    vector = torch.zeros(100)
    bits = torch.zeros(13, dtype=torch.uint8)
    codes = torch.zeros(38, dtype=torch.uint8)
    ends = torch.zeros(2), torch.zeros(2)
    top_k.top_k(vector, 3)
    for threshold in (1 << 31, 1 << 32):
        scalars = {"decay": 1.0, "c": 0.1, "offset": 0, "key": KEY, "threshold": threshold}
        signs.pack_signs(vector.bfloat16(), 0, KEY, threshold)
        selected = bits if threshold == 1 << 32 else bits[:0]  # what does not run selects nothing
        signs.add_signs(selected, 0, KEY, threshold, vector)
        signs.error_feedback_step([vector], vector, vector, vector, vector, mu=0.9, **scalars)
    signs.error_feedback_total(vector.to(torch.int8), vector.double(), vector.double(), divisor=3, scale=0.5, **scalars)
    signs.error_feedback_total(vector, vector, vector, divisor=3, scale=0.5, **scalars)
    signs.momentum_signs(vector, vector, mu=0.9)
    signs.selected_bits(0, 100, KEY, threshold)
    importlib.import_module("laconic.kernels.gpu.finite").divide(vector, 3)
    signs.slice_bits(bits, 3, 77)
    signs.majority([bits, bits], 100)
    quantized.quantize(vector, *ends, (50, 50), 3, 0, KEY)
    quantized.quantize(vector.double(), ends[0].double(), ends[1].double(), (1, 99), 3, 0, KEY)
    quantized.add_dequantized(codes, *ends, (50, 50), 3, vector)
    quantized.quantize_levels(vector, ends[0], (1, 99), 3, 0, KEY)
    quantized.levels_dense(codes, ends[0], (1, 99), 3)
    quantized.ranges(vector, (50, 50))
    quantized.norms(vector, (50, 50))
    for width in (3, 9):
        fractional.fractional_codes(vector, width)
    fractional.fractional_dense(codes, torch.zeros(4), 100, 3)
    fractional.pack_codes(torch.zeros(100, dtype=torch.int32), 9)
    fractional.unpack_codes(codes, 100, 3)
    positions.put_numbers(torch.arange(100), 7)
    positions.take_numbers(codes, 40, 7)
    for from_last in (False, True):
        positions.put_runs(torch.arange(100), 3, 7, from_last, 500)
    lengths = (50, 50)
    residuals.correct(vector, vector, divisor=3, decay=0.7)
    packed, means = residuals.correct_signs(vector, vector, lengths)
    residuals.momentum_correct_signs(vector, vector, vector, vector, lengths, mu=0.9, decay=0.7)
    residuals.put_scaled_signs(packed, means, lengths, vector)
    residuals.add_scaled_signs(packed, means, lengths, vector)


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu_and_rounds_each_operation_by_itself(compiled_for_a_gpu):
    start_every_kernel()
    files = [file for file in (Path(families.__file__).parent / "gpu").glob("*.py") if file.stem != "compile"]
    started = {
        f"laconic.kernels.gpu.{file.stem}.{name}" for file in files for name in LAUNCHED.findall(file.read_text())
    }
    assert set(compiled_for_a_gpu) == started
    for name, versions in compiled_for_a_gpu.items():
        for version in versions:
            assert not version.metadata.enable_fp_fusion, name  # else the assembler would join what is apart here
            assert not ROUNDED_ONCE.findall(version.asm["ptx"]), name
