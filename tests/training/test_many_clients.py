"""1,000 clients of which 10 work do not hold 1,000 models."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.nightly

SCRIPT = textwrap.dedent(
    """
    import resource, sys, torch
    from laconic.lab.runs.run import run_simulated
    from laconic.lab.runs.settings import RunSettings

    algorithm, local_steps = sys.argv[1], int(sys.argv[2])
    run_simulated(
        RunSettings(
            algorithm=algorithm, workers=1000, clients_per_round=10, dataset="made:data", batch_size=10,
            partition="unequal", weights="samples", local_steps=local_steps, layout="dedicated", epochs=1,
        ),
        lambda progress: None,
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # GiB
    """
)
DATA = textwrap.dedent(
    """
    import torch

    def data():
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(60000, 1, 28, 28, generator=generator)
        labels = (inputs.flatten(1) @ torch.randn(784, 10, generator=generator)).argmax(1)
        return inputs[:50000], labels[:50000], inputs[50000:], labels[50000:]
    """
)


@pytest.mark.parametrize(("algorithm", "local_steps"), [("sgd", 5), ("ec-sgd", 1)])
def test_a_thousand_clients_of_an_mlp_take_less_than_4_gib(tmp_path, algorithm, local_steps):
    (tmp_path / "made.py").write_text(DATA)
    command = [sys.executable, "-c", SCRIPT, algorithm, str(local_steps)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 4
