"""`--load FILE`: enter algorithms from a file, so that the contract tests run over them too.

`--fault-seed SEED`: try that fault plan alone.
"""

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, settings

from laconic.contract import load_plugins

pytest.register_assert_rewrite("support")

# How long an example takes says how busy the machine is, and that the first one compiles.
settings.register_profile("laconic", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laconic")


def pytest_addoption(parser):
    parser.addoption("--load", action="append", default=[], help="a Python file with algorithms of one's own")
    parser.addoption("--fault-seed", type=int, help="the one fault plan to try in tests/faults/test_faults.py")


def pytest_configure(config):
    torch.set_num_threads(1)
    load_plugins(config.getoption("--load"))


def pytest_sessionstart(session):
    """Compile the kernels before the tests' processes start, each of which would compile all that it uses."""
    if session.config.getoption("numprocesses", None):  # not in one of the processes that it gives the tests to
        from support.methods import use_every_method  # it asks which algorithms there are, and --load enters some

        use_every_method()


def pytest_collection_modifyitems(config, items):
    """Where several processes share the tests, the long ones come first, so that none of them is left for the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module")
def group_of_one(tmp_path_factory):
    """A process group of this process alone."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
