"""Each trainer's example is stopped, goes on from the trainer's checkpoint, and ends with the bits of a straight run.

The examples train one model on one sequence of mini-batches, so that they also end with the same bits as each other.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.deadlines import DEADLINE_S
from support.extras import needs

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
LAUNCHED = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
MAX_LINES = 60
STRAIGHT, STOPPED = 10, 5

ALIKE = {  # example: how it is started, and the package that it needs
    "torchrun": (LAUNCHED, "torch"),
    "with_accelerate": (LAUNCHED, "accelerate"),
    "with_fabric": ((), "lightning"),
    "with_lightning": ((), "lightning"),
}


def run(name: str, start: tuple[str, ...], *arguments: object) -> str:
    command = [sys.executable, *start, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def model_in(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The model that plain torchrun ends with."""
    folder = tmp_path_factory.mktemp("straight")
    run("torchrun", LAUNCHED, "--steps", STRAIGHT, "--folder", folder)
    return model_in(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
def test_an_example_that_is_stopped_goes_on_and_ends_with_the_bits_of_a_straight_run(name, straight, tmp_path):
    start, package = ALIKE[name]
    needs(package)
    run(name, start, "--steps", STOPPED, "--folder", tmp_path)
    assert not equal(model_in(tmp_path), straight)
    run(name, start, "--steps", STRAIGHT, "--folder", tmp_path)
    assert equal(model_in(tmp_path), straight)


@pytest.mark.slow
def test_the_trainer_of_transformers_goes_on_with_the_bits_of_a_straight_run(tmp_path):
    needs("transformers")
    for folder, steps in (("straight", STRAIGHT), ("stopped", STOPPED), ("stopped", STRAIGHT)):
        run("with_transformers", LAUNCHED, "--steps", steps, "--folder", tmp_path / folder)
    assert equal(model_in(tmp_path / "straight"), model_in(tmp_path / "stopped"))


@pytest.mark.slow
@pytest.mark.nightly
def test_a_run_of_ray_train_goes_on_and_a_worker_that_dies_is_replaced(straight, tmp_path):
    needs("ray.train")
    run("with_ray_train", (), "--steps", STOPPED, "--folder", tmp_path)
    run("with_ray_train", (), "--steps", STRAIGHT, "--folder", tmp_path, "--dies-at", STOPPED + 2)
    assert (tmp_path / "died").exists()
    states = [torch.load(file) for file in tmp_path.rglob("state.pt")]
    assert sorted(state["step"] for state in states) == [STOPPED, STRAIGHT], "it went on from the first run's"
    assert equal(next(state for state in states if state["step"] == STRAIGHT)["model"], straight)


@pytest.mark.slow
def test_the_character_model_learns_by_a_method_and_says_how_many_tokens_a_second():
    printed = run("char_gpt", LAUNCHED, "--steps", 60, "--method", "ec-sgd")
    before, after = map(float, re.search(r"loss (\S+) -> (\S+), \S+ tokens a second", printed).groups())
    assert after < before - 0.2


def test_an_example_has_fewer_than_sixty_lines_of_text_and_says_how_to_start_it():
    for file in sorted(EXAMPLES.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert len([line for line in text.splitlines() if line.strip()]) < MAX_LINES, file.name
        assert f"examples/{file.name}" in text.partition('"""\n\n')[0], file.name


def test_the_script_for_slurm_and_the_file_for_containers_have_no_mistake_of_syntax():
    checked = subprocess.run(
        ["bash", "-n", str(EXAMPLES / "slurm.sbatch")], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    yaml = pytest.importorskip("yaml", reason="pyyaml, which comes with the extra `site`, is not installed")
    services = yaml.safe_load((EXAMPLES / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert [services[name]["environment"]["RANK"] for name in sorted(services)] == ["0", "1", "2", "3"]
    assert {service["environment"]["MASTER_ADDR"] for service in services.values()} == {"rank0"}
