"""`--load FILE`: register algorithms from a file, so that the contract tests run with them too.

`--fault-seed SEED`: run only that fault plan.
"""

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, settings

from laconic.contract import load_plugins

pytest.register_assert_rewrite("support")

# The duration of an example depends on how busy the machine is, and the initial one compiles kernels.
settings.register_profile("laconic", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laconic")


def pytest_addoption(parser):
    parser.addoption("--load", action="append", default=[], help="A Python file with algorithms to test as well.")
    parser.addoption(
        "--fault-seed", type=int, help="The seed of the only fault plan to run in tests/faults/test_faults.py."
    )


def pytest_configure(config):
    torch.set_num_threads(1)
    load_plugins(config.getoption("--load"))


def pytest_sessionstart(session):
    """Compile the kernels before the test processes start, since each of them would compile what it uses."""
    if session.config.getoption("numprocesses", None):  # not in the worker processes of xdist
        from support.methods import use_every_method  # imported late, because --load registers algorithms

        use_every_method()


def pytest_collection_modifyitems(config, items):
    """If several processes share the tests, run the slow ones before the others, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module")
def group_of_one(tmp_path_factory):
    """A process group of this process alone."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
